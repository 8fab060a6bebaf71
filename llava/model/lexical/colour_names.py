"""The name of a colour, for inks, grounds and drawn objects. No torch."""

from __future__ import annotations

import colorsys

# The names of llava.synth's colours, in its order.
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")


def name_colour(red: float, green: float, blue: float) -> str:
    """One of ``COLOURS`` for an RGB value of 0 to 255."""
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    degrees = hue * 360
    chroma = saturation * value
    if value < 0.2 or (value < 0.36 and chroma < 0.08):
        return "black"
    if chroma < 0.12 or saturation < 0.12:
        return "white" if value > 0.87 else "gray" if value >= 0.3 else "black"
    if degrees < 16 or degrees >= 345:
        return (
            "brown"
            if value < 0.4 and degrees > 8 and degrees < 100
            else "pink"
            if saturation < 0.55 and value > 0.75
            else "red"
        )
    if degrees < 42:
        return "brown" if value < 0.72 or (saturation < 0.5 and value < 0.85) else "orange"
    if degrees < 68:
        return "brown" if value < 0.4 else "yellow" if value > 0.6 else "green"
    if degrees < 172:
        return "green"
    if degrees < 252:
        return "blue"
    if degrees < 292:
        return "purple"
    return "pink" if value > 0.72 else "purple"
