"""Lets PyPI's torchvision, which is built for CUDA, be imported beside a torch for CPUs.

Its compiled half cannot be loaded there, and the import then ends at ``operator torchvision::nms does not exist``: the
Python half registers shapes for two operators that the compiled one would have declared. Declared here by name only,
they are never called, and the pure Python parts (transforms), which is all that the engines use, work. Without
torchvision vLLM and SGLang cannot look at any model with images. A ``.pth`` line in site-packages imports this file.
"""

import importlib.abc
import sys


class _Declarer(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is first looked for; torch is not imported before that."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            kept.append(self.library)  # operators go when the library object does
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


kept: list = []
sys.meta_path.insert(0, _Declarer())
