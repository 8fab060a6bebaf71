"""Front doors: the original's module for each language model."""
