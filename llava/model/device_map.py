"""A model over several devices: the device of each part, and accelerate's hooks that move inputs between them.

The model is filled on the CPU, where its weights stay mapped from their files, and moved from there part by part. No
block of the decoder or of the tower is split over two devices.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llava.errors import UsageError

_SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
# The share of a GPU's free memory that is left for activations and the KV cache.
_KEPT_FREE = 0.2


def find_device_map(model: Any, asked: Any, dtype: torch.dtype, main: torch.device) -> dict[str, Any] | None:
    """The device of each part of a model on the meta device; None if all of it goes to ``main``.

    ``asked``: a map or one of the strings that Transformers accepts. "auto" spreads a model only if it does not fit
    ``main``, since several devices are slower than one; the other strings spread it over all GPUs.

    Raises:
        UsageError: the map does not cover the model, or names something that is not a device.
    """
    if asked is None or asked == "":
        return None
    if isinstance(asked, Mapping):
        devices = {str(place) for place in asked.values()}
        return None if len(devices) == 1 and "disk" not in devices else _checked(model, dict(asked))
    if asked not in _SPREADING or main.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    num_bytes = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if asked == "auto" and num_bytes < torch.cuda.mem_get_info(main)[0] * (1 - _KEPT_FREE):
        return None
    room: dict[Any, int] = {
        index: int(torch.cuda.mem_get_info(index)[0] * (1 - _KEPT_FREE)) for index in range(torch.cuda.device_count())
    }
    return plan_devices(model, dtype, {**room, "cpu": 2**62})


def plan_devices(model: Any, dtype: torch.dtype, max_memory: Mapping[Any, Any]) -> dict[str, Any]:
    """The device of each part if the devices are filled in the order of ``max_memory``, in bytes per device."""
    from accelerate import infer_auto_device_map

    planned = infer_auto_device_map(
        model, dict(max_memory), no_split_module_classes=find_unsplit(model), dtype=dtype, clean_result=True
    )
    return _checked(model, dict(planned))


def find_unsplit(model: Any) -> list[str]:
    """The classes of the modules that are not split: the decoder's blocks and the tower's."""
    return sorted({*(model._no_split_modules or ()), *(model.get_model()._no_split_modules or ())})


def _checked(model: Any, device_map: dict[str, Any]) -> dict[str, Any]:
    """The map, if it covers the model. Raises UsageError otherwise."""
    from accelerate.utils import check_device_map

    for place in device_map.values():
        try:
            known = place == "disk" or isinstance(place, int) or torch.device(place)
        except (RuntimeError, TypeError):
            known = False
        if known is False:
            raise UsageError(f"device_map contains '{place}', which is not a device: use 0, 'cuda:0', 'cpu', 'disk'.")
    try:
        with _without_warning():
            check_device_map(model, device_map)
    except ValueError as error:
        raise UsageError(f"device_map does not cover the whole model: {error}") from error
    return device_map


@contextmanager
def _without_warning() -> Iterator[None]:
    """Silences a warning about parameters in the map, such as the newline, which accelerate's own plans contain."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys do not match")
        yield


def spread(model: Any, device_map: dict[str, Any], offload_folder: str | Path | None = None) -> None:
    """Moves each part of a whole model to its device, in place; hooks move its inputs there.

    Weights on disk are in a folder of their own inside ``offload_folder``, which is removed with the model: accelerate
    takes any weights that it finds in a folder for the model's, even if they are another model's.

    Raises:
        UsageError: a part goes to disk, but there is no folder for it.
    """
    from accelerate import dispatch_model

    if "disk" in {str(place) for place in device_map.values()}:
        if offload_folder is None:
            raise UsageError("device_map sends a part of the model to disk, but offload_folder does not say where.")
        try:
            os.makedirs(offload_folder, exist_ok=True)
            folder = tempfile.mkdtemp(prefix="llava-offload-", dir=offload_folder)
        except OSError as error:
            raise UsageError(f"offload_folder '{offload_folder}' cannot be written: {error.strerror}.") from error
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        offload_folder = folder
    if "" in device_map:  # accelerate looks for parts below this name
        device_map = {name: device_map[""] for name, _ in model.named_children()}
    main = next((place for place in device_map.values() if place not in ("cpu", "disk")), "cpu")
    with _without_warning():
        dispatch_model(model, device_map, main_device=main, offload_dir=offload_folder)
