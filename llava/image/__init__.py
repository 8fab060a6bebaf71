"""Images: reading and decoding them, planning their tiles, and the pixel values that the vision tower takes."""
