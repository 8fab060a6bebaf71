"""Trains what the talking default model adds to a frozen language model: its image adapter and its projector."""
