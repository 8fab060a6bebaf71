"""Fetches remote data files to the cache: ``hf://`` through the hub's own cache, any other scheme through fsspec."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llava.cache_folder import find_cache
from llava.data.long_work import LongWork
from llava.errors import UsageError
from llava.text import fit_line

# What fsspec needs for a scheme. Source: https://filesystem-spec.readthedocs.io, "Known implementations".
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_PACKAGES |= {"az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub", "ssh": "paramiko", "sftp": "paramiko"}
_CHUNK_BYTES = 4 * 1024 * 1024


def fetch_files(url: str) -> list[str]:
    """The local copies of the files that a URL names, a pattern with ``*`` and a folder of shards included, in order.

    A file that was fetched before is not fetched again unless it has changed there.

    Raises:
        UsageError: fsspec or the package for this scheme is missing, there is no such file, or fetching fails.
    """
    from llava.data.data_paths import FORMATS, check_shards

    shown, scheme = fit_line(url), url.partition("://")[0].lower()
    try:
        import fsspec
    except ImportError as error:
        raise UsageError("Remote data files need the package's data extra: run pip install 'llava[data]'.") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "the package that the message names")
        raise UsageError(f"Reading {shown} needs {package}: run pip install {package}. ({error})") from error
    except ValueError as error:
        raise UsageError(f"{shown} cannot be read: {error}. Fetch the file, and name the copy.") from error
    try:
        if "*" in path:
            paths = sorted(name for name in system.glob(path) if name.endswith(FORMATS))
        elif not _strip_query(path).endswith(FORMATS) and system.isdir(path):
            paths = _list_folder(system, path)
            check_shards(paths, shown)
        else:
            paths = [path]
        if not paths:
            raise UsageError(f"No data file matches {shown}.")
        return [_fetch_hub(system, name) if scheme == "hf" else _fetch(system, name, scheme) for name in paths]
    except UsageError:
        raise
    except Exception as error:  # each scheme has its own errors
        raise UsageError(
            f"{shown} cannot be fetched: {_say(error)}. Check the address, the network and your login, or fetch "
            "the file otherwise and name the copy."
        ) from error


def _list_folder(system: Any, path: str) -> list[str]:
    for place in (path, f"{path.rstrip('/')}/data"):
        found = sorted(name for suffix in ("parquet", "tar") for name in system.glob(f"{place.rstrip('/')}/*.{suffix}"))
        if found:
            return found
    return []


def _strip_query(path: str) -> str:
    return urlsplit(path).path if path.startswith(("http://", "https://")) else path


def _say(error: Exception) -> str:
    text = fit_line(str(error).strip() or type(error).__name__, 300).rstrip(".")
    return f"there is no such file ({text})" if isinstance(error, FileNotFoundError) else text


def _fetch_hub(system: Any, path: str) -> str:
    """A file of the hub by its own cache, which resumes and verifies."""
    from huggingface_hub import hf_hub_download

    found = system.resolve_path(path)
    if not hasattr(found, "repo_id"):  # a bucket, which has no such cache
        return _fetch(system, path, "hf")
    return hf_hub_download(found.repo_id, found.path_in_repo, repo_type=found.repo_type, revision=found.revision)


def _fetch(system: Any, path: str, scheme: str) -> str:
    """A file in the cache, below a name that its state there decides."""
    state = hashlib.sha256(f"{scheme}\0{path}\0{system.ukey(path)}".encode()).hexdigest()[:32]
    place = find_cache() / "data" / state / Path(_strip_query(path)).name
    if place.is_file():
        return str(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=place.parent)
    size = system.info(path).get("size")
    try:
        with os.fdopen(handle, "wb") as file, system.open(path, "rb") as remote:
            with LongWork(f"Fetching {Path(path).name}", size, "B") as work:
                while chunk := remote.read(_CHUNK_BYTES):
                    file.write(chunk)
                    work.move_to(file.tell())
            if size is not None and file.tell() != size:
                raise OSError(f"only {file.tell():,} of {size:,} bytes arrived")
        os.replace(temporary, place)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return str(place)
