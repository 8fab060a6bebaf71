"""Trains the default model's reader of text: draws lines and pages, and fits the finder and the reader to them."""
