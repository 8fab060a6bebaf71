"""The lexical tower: turns an image into words that the language model knows, and EfficientNet's view of it."""
