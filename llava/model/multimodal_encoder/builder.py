"""Front door: building a vision tower from a configuration."""

from llava.model.vision import build_vision_tower

__all__ = ["build_vision_tower"]
