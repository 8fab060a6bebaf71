"""Front door: the original's module for projectors."""
