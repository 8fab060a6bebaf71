"""Reads ``mixture.yaml``: which sources a mixture has, what it takes of each, and where their files are.

A file may extend another, its own neighbour or one that ships with the package, and change single keys and sources.
Sources that were never published, or that a mixture leaves out on purpose, are ``optional``: they take part only where
they are asked for by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from llava.data import prompts
from llava.data.strategies import Strategy, parse_strategy
from llava.errors import UsageError
from llava.yaml_files import name_nearest, parse_mapping

SHIPPED = Path(__file__).parent / "mixtures"
ALL = Strategy("all", "")
_MOST_EXTENDED = 10
_MOST_WEIGHT = 1000


@dataclass(frozen=True)
class Source:
    """One source of a mixture.

    Attributes:
        name: what the loss, the statistics and the records call it.
        data: what ``read_records`` takes; relative to the mixture's root.
        images: a folder that is put in front of image names, relative to the image folder; "" for none.
        take: which rows are taken.
        weight: how often these occur in an epoch: 2 is twice, 1.5 once and a random half of them again.
        prompt: a line that is added to each first question; "" for none.
        optional: it takes part only where it is asked for.
        about: what it is, what stands in for it, and why it is optional.
        convert: the name of the converter that makes its file, for messages.
        num_published: its rows in the published mixture; None where nobody published that.
    """

    name: str
    data: str | tuple[str, ...]
    images: str = ""
    take: Strategy = ALL
    weight: float = 1.0
    prompt: str = ""
    optional: bool = False
    about: str = ""
    convert: str = ""
    num_published: int | None = None


@dataclass(frozen=True)
class MixtureFile:
    """A mixture as its file describes it.

    Attributes:
        name: for tables.
        root: the folder that the sources' files are relative to.
        seed: of what is taken at random.
        failures: how many rows may fail before a run stops: a number, or a percentage of all.
        about: a sentence on what the mixture is.
        sources: those that take part.
        left_out: the optional ones that do not.
    """

    name: str
    root: Path
    seed: int
    failures: str
    about: str
    sources: tuple[Source, ...] = ()
    left_out: tuple[Source, ...] = field(default=())

    def count_failures(self, num_rows: int) -> int:
        """How many rows may fail."""
        if self.failures.endswith("%"):
            return int(Fraction(self.failures[:-1]) * num_rows / 100)
        return int(self.failures)


def list_shipped() -> list[str]:
    """The names of the mixtures that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_mixture(name: str) -> Path | None:
    """The file of a mixture: a path, or the name of one that ships with the package. None for anything else."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    return SHIPPED / f"{name}.yaml" if name in list_shipped() and not Path(name).exists() else None


def read_mixture(path: str | Path, root: str | Path | None = None, wanted: Sequence[str] = ()) -> MixtureFile:
    """The mixture in a file.

    Args:
        root: the folder that the sources' files are relative to, in place of the file's own ``root``.
        wanted: names of optional sources that take part.

    Raises:
        UsageError: the file is missing or not valid, or a key or a name is unknown; the nearest one is named.
    """
    values = _read_values(Path(path), ())
    what = f"The mixture '{path}'"
    _check_keys(values, {"name", "root", "seed", "failures", "about", "with", "sources", "extends"}, what)
    sources = [_parse_source(name, each, what) for name, each in _list_sources(values.get("sources"), what)]
    wanted = [*_list_texts(values.get("with"), "with", what), *wanted]
    optional = [each.name for each in sources if each.optional]
    for name in wanted:
        if name not in optional:
            raise UsageError(f"{what} has no optional source '{name}'.{name_nearest(name, optional)}")
    seed = values.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"{what}: seed is {seed!r}; it has to be a whole number.")
    taken = tuple(each for each in sources if not each.optional or each.name in wanted)
    if not taken:
        raise UsageError(f"{what} has no source that takes part. Ask for optional ones with 'with': {optional}.")
    return MixtureFile(
        name=_read_text(values, "name", what, Path(path).stem),
        root=Path(root) if root is not None else _find_root(Path(path), _read_text(values, "root", what), what),
        seed=seed,
        failures=_parse_failures(values.get("failures", 0), what),
        about=_read_text(values, "about", what),
        sources=taken,
        left_out=tuple(each for each in sources if each not in taken),
    )


def _find_root(path: Path, root: str, what: str) -> Path:
    """The file's ``root``, relative to the file; for one that ships with the package, the current folder."""
    here = Path() if path.parent == SHIPPED else path.parent
    try:
        return here / Path(root).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{what}: root is '{root}', and there is no such user.") from error


def _read_values(path: Path, before: tuple[Path, ...]) -> dict[Any, Any]:
    """The file's keys over those of the file that it extends; ``sources`` is merged by name."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fault = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(
            f"The mixture '{path}' {fault}. Mixtures that ship with the package: {', '.join(list_shipped())}."
        ) from error
    values = parse_mapping(text, f"The mixture '{path}'")
    extended = values.pop("extends", None)
    if extended is None:
        return values
    other = find_mixture(str(extended))
    if other is None:
        raise UsageError(f"The mixture '{path}' extends '{extended}'.{name_nearest(str(extended), list_shipped())}")
    other = other if other.parent == SHIPPED else path.parent / other
    if other in before or len(before) > _MOST_EXTENDED:
        raise UsageError(f"The mixture '{path}' extends itself by way of '{other}'.")
    base = _read_values(other, (*before, path))
    sources = dict(_list_sources(base.get("sources"), f"The mixture '{other}'"))
    for name, changes in _list_sources(values.get("sources"), f"The mixture '{path}'"):
        sources[name] = {**sources.get(name, {}), **changes}
    return {**base, **values, "sources": sources}


def _list_sources(value: Any, what: str) -> list[tuple[str, dict[Any, Any]]]:
    """(name, keys) of each source: ``sources`` maps names to keys."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise UsageError(f"{what} needs 'sources': names, each with its 'data'.")
    for name, keys in value.items():
        if not isinstance(keys, dict):
            raise UsageError(f"{what}: the source '{name}' is {keys!r:.60}; it needs keys, 'data' at least.")
    return [(str(name), keys) for name, keys in value.items()]


def _parse_source(name: str, values: Mapping[Any, Any], what: str) -> Source:
    where = f"{what}, source '{name}'"
    _check_keys(values, {each.name for each in dataclasses.fields(Source)} - {"name"}, where)
    data = values.get("data")
    files: list[Any] = data if isinstance(data, list) else [data]
    if not files or not all(isinstance(each, str) and each for each in files):
        raise UsageError(f"{where}: data is {data!r:.60}; it has to be a file, or a list of them.")
    weight = _read_number(values.get("weight", 1))
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= _MOST_WEIGHT:
        raise UsageError(f"{where}: weight is {weight!r}; it has to be above 0 and at most {_MOST_WEIGHT}.")
    take = _read_text(values, "take", where, "all")
    prompt = _read_text(values, "prompt", where)
    num_published = values.get("num_published")
    if num_published is not None and (isinstance(num_published, bool) or not isinstance(num_published, int)):
        raise UsageError(f"{where}: num_published is {num_published!r}; it has to be a whole number.")
    optional = values.get("optional", False)
    if not isinstance(optional, bool):
        raise UsageError(f"{where}: optional is {optional!r}; it has to be true or false.")
    images = _read_text(values, "images", where)
    if Path(images).is_absolute() or ".." in Path(images).parts:
        raise UsageError(f"{where}: images is '{images}'; it has to be a folder inside the image folder.")
    return Source(
        name=name,
        data=files[0] if len(files) == 1 else tuple(files),
        images=images,
        take=parse_strategy(f"random:{take}" if take.endswith("%") and ":" not in take else take, "take", where),
        weight=float(weight),
        prompt=prompts.ANSWER_FORMATS.get(prompt, prompt),
        optional=optional,
        about=_read_text(values, "about", where),
        convert=_read_text(values, "convert", where),
        num_published=num_published,
    )


def _read_number(value: Any) -> Any:
    """The value, as a number where YAML takes 1e-3, which has no point, for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _parse_failures(value: Any, what: str) -> str:
    text = str(value)
    number = text.removesuffix("%")
    try:
        is_right = not isinstance(value, bool) and float(number) >= 0 and (number.isdecimal() or text != number)
    except ValueError:
        is_right = False
    if not is_right or (text != number and float(number) > 100):
        raise UsageError(f"{what}: failures is '{text}'; it has to be a number of rows, or a percentage such as 0.1%.")
    return text


def _read_text(values: Mapping[Any, Any], key: str, where: str, default: str = "") -> str:
    """The text under a key; a number or a date is text, too."""
    value = values.get(key, default)
    if value is None or isinstance(value, (bool, list, dict, set, bytes)):
        raise UsageError(f"{where}: {key} is {value!r:.60}; it has to be text.")
    return str(value)


def _list_texts(value: Any, key: str, what: str) -> list[str]:
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise UsageError(f"{what}: {key} is {value!r:.60}; it has to be a list of names.")
    return texts


def _check_keys(values: Mapping[Any, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise UsageError(f"{where} has the unknown key '{key}'.{name_nearest(str(key), known)}")
