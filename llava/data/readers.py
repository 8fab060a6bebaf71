"""Opens the data files of LLaVA's users as records by number, and names what is wrong with them.

A JSON list, JSON lines, a YAML file that samples several files, Hugging Face's parquet, WebDataset's tar archives, and
lists of all these. Each row is checked when its file is opened for the first time, so that a mistake is found before
training; after that an index stands for the file, and rows are read when they are needed. No image is opened.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, LazySupervisedDataset (what
``--data_path`` takes).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from llava.data.data_paths import FORMATS, list_data_files
from llava.data.json_rows import JsonRows, scan_json
from llava.data.json_scan import ScannedRow
from llava.data.mixture_file import find_mixture
from llava.data.rows import ChosenRows, JoinedRows, Rows
from llava.data.strategies import parse_strategy
from llava.errors import UsageError
from llava.yaml_files import name_nearest, parse_mapping


def read_records(data_path: str | Path | Sequence[str | Path], seed: int = 0) -> Rows:
    """All records that ``data_path`` names, in order. They are read when they are asked for, and can be pickled.

    Args:
        data_path: a .json file with a list of rows; a .jsonl file with a row in each line; a .parquet file as Hugging
            Face ``datasets`` writes it; a .tar file in WebDataset's format; a .yaml file with ``datasets``, each with a
            ``json_path`` and optionally a ``sampling_strategy``: ``all``, or ``first``, ``end`` or ``random`` with a
            number or a percentage (rounded up), such as ``first:1000`` or ``random:10%``; a mixture's .yaml file, or
            the name of one that ships with the package; several files as
            ``name_{a,b}.json``, ``name_{000..012}.tar``, ``folder/*.parquet`` or a folder of shards; remote files as
            ``hf://``, ``https://`` or ``s3://``; or a list of these.
        seed: decides what ``random`` takes, and in which order.

    Raises:
        UsageError: a file is missing, cannot be read or has no rows, or a row is invalid; the remedy is named.
    """
    if not isinstance(data_path, (str, Path)):
        if not data_path:
            raise UsageError("The list of data files is empty. Name at least one.")
        return _join([read_records(path, seed) for path in data_path])
    path = str(data_path)
    if (file := find_mixture(path)) is not None:
        return _read_yaml(file, seed)
    return _join([_open_file(file) for file in list_data_files(path)])


def scan_rows(path: str) -> Iterator[ScannedRow]:
    """All rows of one data file in order, with a fault in the place of its row, so that those after it can be read.

    Raises:
        UsageError: the file is missing, or so damaged that no row of it can be read.
    """
    _check_format(path)
    if path.endswith(".parquet"):
        from llava.data.parquet_rows import scan_parquet

        return scan_parquet(path)
    if path.endswith(".tar"):
        from llava.data.tar_rows import scan_tar

        return scan_tar(path)
    return scan_json(path)


def _join(parts: list[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def _open_file(path: str, formats: tuple[str, ...] = FORMATS) -> Rows:
    """The rows of one file, each checked. Raises UsageError."""
    _check_format(path, formats)
    if path.endswith(".parquet"):
        from llava.data.parquet_rows import ParquetRows

        return ParquetRows(path)
    if path.endswith(".tar"):
        from llava.data.tar_rows import TarRows

        return TarRows(path)
    return JsonRows(path)


def _check_format(path: str, formats: tuple[str, ...] = FORMATS) -> None:
    if path.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UsageError(
            f"The data file '{path}' is a compressed archive, in which no place can be read alone. Unpack the archive "
            "once, to a .tar file: its images are compressed already."
        )
    if not path.endswith(formats):
        known = ", ".join((*formats, ".yaml")[:-1])
        raise UsageError(f"The data file '{path}' is none that can be read: it has to end with {known} or .yaml.")


def _read_yaml(path: Path, seed: int) -> Rows:
    """The rows that a mixture, or LLaVA-NeXT's list of ``datasets``, takes from its files. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fault = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(f"The data file '{path}' {fault}.") from error
    values = parse_mapping(text, f"The data file '{path}'")
    if {"sources", "extends"} & values.keys():
        from llava.data.mixture import open_mixture

        return open_mixture(path)
    datasets = values.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise UsageError(
            f"The data file '{path}' needs a list 'datasets', each with a json_path, or, as a mixture, 'sources'."
        )
    parts: list[Rows] = []
    for i, dataset in enumerate(datasets):
        where = f"Dataset {i + 1} of '{path}'"
        if not isinstance(dataset, dict) or not isinstance(dataset.get("json_path"), str):
            raise UsageError(f"{where} needs a json_path, the name of a .json or .jsonl file.")
        unknown = [key for key in dataset if key not in ("json_path", "sampling_strategy")]
        if unknown:
            nearest = name_nearest(str(unknown[0]), ("json_path", "sampling_strategy"))
            raise UsageError(f"{where} has the unknown key '{unknown[0]}'.{nearest}")
        strategy = parse_strategy(dataset.get("sampling_strategy", "all"), "sampling_strategy", where)
        rows = _open_file(dataset["json_path"], (".json", ".jsonl"))
        chosen = strategy.choose(len(rows), random.Random(f"{seed}:{i}"))
        parts.append(rows if strategy.name == "all" else ChosenRows(rows, chosen))
    return _join(parts)
