"""An image becomes numbers: where it comes from, how it is cut into tiles, and the pixels the vision tower sees."""
