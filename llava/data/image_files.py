"""Where an image that a record names is: in the image folder, and nowhere else unless that is allowed."""

from __future__ import annotations

import os
from pathlib import Path

from llava.errors import BadImage
from llava.text import fit_line


def find_image(folder: Path, name: str, *, allows_outside: bool = False) -> Path:
    """The file of an image. Symbolic links in the folder are followed; a name may not lead out of it.

    Raises:
        BadImage: it is missing, a symbolic link to itself, no file, or outside the folder.
    """
    path, absolute = folder / name, os.path.abspath(folder)
    shown = fit_line(str(path))
    if not allows_outside and os.path.commonpath((absolute, os.path.abspath(path))) != absolute:
        raise BadImage(f"The image '{fit_line(name)}' lies outside the image folder {folder}.")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(f"There is no image '{shown}'. Image names are relative to the image folder.") from error
    except (OSError, ValueError) as error:  # a name with U+0000 is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"The image '{shown}' cannot be opened: {reason}.") from error
    if not path.is_file():
        raise BadImage(f"There is no image '{shown}'. Image names are relative to the image folder.")
    return path
