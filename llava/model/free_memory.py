"""How much memory a device has, in all and free, within the limit of the container that this process runs in."""

from __future__ import annotations

import os
import sys

import torch


def find_free_bytes(device: torch.device) -> int:
    """The device's free memory, within the container's limit; 2 GiB where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = 2 * 2**30
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    try:
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            free = min(free, max(0, _find_limit() - int(file.read())))
    except (OSError, ValueError):
        pass
    return free


def find_total_bytes(device: torch.device) -> int:
    """The device's total memory, within the container's limit, whether or not it is in use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not on this system
        total = sys.maxsize
    try:
        return min(total, _find_limit())
    except (OSError, ValueError):
        return total


def _find_limit() -> int:
    """The container's memory limit in bytes. Raises OSError or ValueError if there is none."""
    with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
        return int(file.read())
