"""The tower that looks at an image and writes down in words what it sees."""
