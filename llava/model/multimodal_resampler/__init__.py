"""Front door: LLaVA-NeXT's module for resamplers."""
