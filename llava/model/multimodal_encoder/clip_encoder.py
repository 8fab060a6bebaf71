"""Front door: the CLIP tower."""

from llava.model.vision import CLIPVisionTower, CLIPVisionTowerS2

__all__ = ["CLIPVisionTower", "CLIPVisionTowerS2"]
