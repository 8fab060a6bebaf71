"""Measuring a model, and the original's ``run_llava``."""
