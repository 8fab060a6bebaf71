"""The original's training command: its flags become a recipe, and its functions and dataset have their names."""
