"""LLaVA training: a recipe's stages on a checkpoint, with Transformers' Trainer."""
