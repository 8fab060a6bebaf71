"""The lexical tower: it turns an image into words and soft words that a language model can read."""
