"""Values of flags: sizes in bytes, numbers of pixels, token ids."""

from __future__ import annotations

import argparse

from llava.text import fit_line


def read_pixels(text: str) -> int:
    """A number of pixels from 50000000, 50M or 0.4G."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        num_px = float(number) * unit
        if 1 <= num_px < 2**60:
            return int(num_px)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"'{fit_line(text, 80)}' is not a number of pixels; write one such as 50000000 or 400M"
    )


def read_bytes(text: str) -> int:
    """A number of bytes from 1000000, 500M, 2G, 1.5G or 1.5GiB."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    short = text[:-2] if text[-3:].upper() in (f"{unit}IB" for unit in units) else text
    number, unit = (short[:-1], units[short[-1].upper()]) if short[-1:].upper() in units else (text, 1)
    try:
        size = float(number) * unit
        if 0 < size < 2**60:
            return int(size)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{fit_line(text, 80)}' is not a size; write a number above 0 such as 500M or 2G")


def read_ids(text: str) -> tuple[int, ...]:
    """Token ids from 5,17,23."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{fit_line(text, 80)}' is not a list of token ids; write whole numbers such as 5,17,23"
        ) from None
