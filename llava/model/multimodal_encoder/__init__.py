"""Front doors: the original's modules for vision towers."""
