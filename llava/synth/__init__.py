"""Draws images whose answers are known: what the embedded default model learns from and is measured on."""
