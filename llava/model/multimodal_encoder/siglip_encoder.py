"""Front door: LLaVA-NeXT's SigLIP tower."""

from llava.model.vision import SigLipVisionTower

__all__ = ["SigLipVisionTower"]
