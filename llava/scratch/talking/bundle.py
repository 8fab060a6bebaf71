"""Packs everything that the adapter's training reads into one file, for a machine without network.

    python -m llava.scratch.talking.bundle talking.tar --things THINGS --facts facts.json --projector P.safetensors

The language model is the 4-bit file of its package, 94 MiB, and features are float16. So many views, prototypes and
looks are taken that the rest has less than 64 MiB; ``--part-mib`` cuts the whole into parts of that size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from llava.errors import LlavaError
from llava.scratch.talking.prepare import find_language_model
from llava.scratch.talking.small_llama import read_adapter
from llava.scratch.talking.training_files import ADAPTER, FACTS, GGUF, PROJECTOR, TALK, THINGS

_COLOURS = "contrast"  # what the tower calls a thing's colour; see FeatureBank
_CHUNK_BYTES = 1 << 20


def copy_things(things: Path, folder: Path, views: int, prototypes: int, looks: int) -> None:
    """Writes a smaller folder of features: so many views, prototypes of each class, and looks of each kind."""
    folder.mkdir(parents=True)
    count = min(views, int((things / "done").read_text()))  # the first ones are any ones: their order is random
    (folder / "done").write_text(str(count))
    for name in ("g", "cells", _COLOURS):
        np.save(folder / f"{name}.npy", np.load(things / f"{name}.npy", mmap_mode="r")[:count].astype(np.float16))
    shown = json.loads((things / "views.json").read_text("utf-8"))[:count]
    (folder / "views.json").write_text(json.dumps(shown, ensure_ascii=False), "utf-8")
    for name in ("classes.json", "head.safetensors"):
        shutil.copyfile(things / name, folder / name)
    all_prototypes = load_file(things / "prototypes.safetensors")
    taken = choose_prototypes(all_prototypes["class"], prototypes)
    chosen = {"g": all_prototypes["g"][taken].half(), "class": all_prototypes["class"][taken]}
    save_file(chosen, folder / "prototypes.safetensors")
    drawn = np.load(things / "looks.npz")
    kept = {kind: drawn[kind][:looks].astype(np.float16) for kind in drawn if kind.endswith(f" {_COLOURS}")}
    np.savez(folder / "looks.npz", **kept)


def choose_prototypes(classes: torch.Tensor, per_class: int) -> torch.Tensor:
    """The numbers of the first prototypes of each class, in order."""
    found: dict[int, list[int]] = {}
    for number, one in enumerate(classes.tolist()):
        found.setdefault(int(one), []).append(number)
    return torch.tensor(sorted(number for numbers in found.values() for number in numbers[:per_class]))


def cut(bundle: Path, part_bytes: int) -> list[Path]:
    """Replaces the file by numbered parts of at most so many bytes each, and returns these."""
    parts: list[Path] = []
    with bundle.open("rb") as whole:
        while whole.peek(1):
            parts.append(bundle.with_name(f"{bundle.name}.{len(parts) + 1:03}"))
            left = part_bytes
            with parts[-1].open("wb") as part:
                while left and (data := whole.read(min(left, _CHUNK_BYTES))):
                    part.write(data)
                    left -= len(data)
    bundle.unlink()
    return parts


def write_bundle(arguments: argparse.Namespace) -> list[Path]:
    """Writes the bundle; returns its file, or its parts."""
    output: Path = arguments.output
    for old in output.parent.glob(f"{output.name}.[0-9][0-9][0-9]"):  # of an earlier bundle, which may have had more
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="llava-bundle-", dir=output.parent) as folder:
        things, partial = Path(folder) / THINGS, Path(folder) / output.name
        copy_things(arguments.things, things, arguments.views, arguments.prototypes, arguments.looks)
        with tarfile.open(partial, "w") as tar:
            files = {FACTS: arguments.facts, TALK: arguments.talk, PROJECTOR: arguments.projector}
            files |= {ADAPTER: arguments.adapter and _strip(arguments.adapter, Path(folder) / ADAPTER)}
            files |= {THINGS: things, GGUF: arguments.gguf or find_language_model()}
            for name, path in files.items():
                if path is not None:
                    size = sum(one.stat().st_size for one in (path.rglob("*") if path.is_dir() else [path]))
                    print(f"{name}: {size / 2**20:.1f} MiB")
                    tar.add(path, name)
        partial.replace(output)
    return [output] if arguments.part_mib is None else cut(output, int(arguments.part_mib * 2**20))


def _strip(checkpoint: Path, file: Path) -> Path:
    """The checkpoint's adapter alone, in bfloat16."""
    torch.save({"adapter": {name: value.bfloat16() for name, value in read_adapter(checkpoint).items()}}, file)
    return file


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--things", type=Path, required=True, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("--facts", type=Path, required=True, help="JSON of llava.scratch.talking.thing_facts")
    parser.add_argument("--projector", type=Path, required=True, help="the aligned projector")
    parser.add_argument("--talk", type=Path, help="JSON of llava.scratch.talking.general_talk")
    parser.add_argument("--adapter", type=Path, help="a checkpoint or packed file to start from; 10 MiB")
    parser.add_argument("--gguf", type=Path, help="the language model's file, where its package is not installed")
    parser.add_argument("--views", type=int, default=1000, help="26 kB each")
    parser.add_argument("--prototypes", type=int, default=4, help="of each class; 2.6 kB each")
    parser.add_argument("--looks", type=int, default=30, help="of each kind of drawn image; 46 kB each")
    parser.add_argument("--part-mib", type=float, help="writes parts of this size")
    try:
        paths = write_bundle(parser.parse_args())
    except LlavaError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for path in paths:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
