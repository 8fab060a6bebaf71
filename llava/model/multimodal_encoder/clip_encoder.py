"""Front door: the CLIP tower."""

from llava.model.vision import CLIPVisionTower

__all__ = ["CLIPVisionTower"]
