"""Front door: building a projector from a configuration."""

from llava.model.projector import IdentityMap, build_vision_projector

__all__ = ["IdentityMap", "build_vision_projector"]
