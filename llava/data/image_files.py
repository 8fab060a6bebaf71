"""Where an image that a record names is: in the image folder, and nowhere else unless that is allowed."""

from __future__ import annotations

import os
from pathlib import Path

from llava.errors import BadImage
from llava.text import fit_line


def find_image(folder: Path, name: str, *, allows_outside: bool = False) -> Path:
    """The file of an image.

    Raises:
        BadImage: it is missing, a symbolic link to itself, or outside the folder.
    """
    path = folder / name
    try:
        if not allows_outside and not _resolve(path).is_relative_to(_resolve(folder)):
            raise BadImage(f"The image '{fit_line(name)}' lies outside the image folder {folder}.")
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage(f"There is no image '{path}'. Image names are relative to the image folder.") from error
    except (OSError, ValueError) as error:  # a name with U+0000 is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"The image '{fit_line(str(path))}' cannot be opened: {reason}.") from error
    if not path.is_file():
        raise BadImage(f"There is no image '{path}'. Image names are relative to the image folder.")
    return path


def _resolve(path: Path) -> Path:
    # Path.resolve raises RuntimeError for a loop of symbolic links before Python 3.13.
    return Path(os.path.realpath(path))
