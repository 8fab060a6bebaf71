"""Front door: building a projector from a configuration."""

from llava.model.projector import IdentityMap, SimpleResBlock, build_vision_projector

__all__ = ["IdentityMap", "SimpleResBlock", "build_vision_projector"]
