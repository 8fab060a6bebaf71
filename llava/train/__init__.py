"""Trains models: recipes, samples, and stages on Transformers' Trainer."""
