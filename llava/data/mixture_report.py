"""What a mixture consists of: a table for the terminal, and the same as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.data.mixture import Mixture
from llava.errors import UsageError
from llava.text import fit_line


def build_table(mixture: Mixture, tokens: Mapping[str, int] | None = None) -> Any:
    """A rich table with a row for each source, its share, and the sum.

    Args:
        tokens: by source, images included; None leaves the column out.
    """
    from rich.table import Table
    from rich.text import Text

    # As Text: in a plain string, rich takes brackets for markup.
    table = Table(title=Text(f"{mixture.file.name}: {mixture.file.about}".rstrip(": ")), title_justify="left")
    table.add_column("source")
    for name in ("samples", "share", "published", "words", *(("tokens",) if tokens is not None else ()), "images"):
        table.add_column(name, justify="right")
    published = {each.name: each.num_published for each in mixture.file.sources}
    sizes = mixture.list_sizes()
    for each in sizes:
        known = published[each.name]
        table.add_row(
            Text(fit_line(each.name)),
            f"{each.num_samples:,}",
            f"{each.share:.1%}",
            "" if known is None else f"{known:,}",
            f"{each.num_words:,}",
            *((f"{tokens[each.name]:,}",) if tokens is not None else ()),
            f"{each.num_images:,}",
        )
    table.add_section()
    table.add_row(
        "all",
        f"{len(mixture):,}",
        "",
        "",
        f"{sum(each.num_words for each in sizes):,}",
        *((f"{sum(tokens.values()):,}",) if tokens is not None else ()),
        f"{sum(each.num_images for each in sizes):,}",
    )
    return table


def check_plot(path: Path) -> None:
    """Raises UsageError if no plot can be written under this name, or matplotlib is missing."""
    known = _make_figure((1, 1)).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UsageError(f"--plot is '{path}'; it has to end with .{', .'.join(sorted(known))}.")


def _make_figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs the package's data extra: run pip install 'llava[data]'.") from error
    return Figure(figsize=size, layout="constrained")


def plot_shares(mixture: Mixture, path: Path) -> None:
    """Writes an image with the samples, words and images of each source. Raises UsageError without matplotlib."""
    sizes = mixture.list_sizes()[::-1]
    names = [fit_line(each.name).replace("$", r"\$") for each in sizes]  # a dollar begins a formula
    figure = _make_figure((11, 1.2 + 0.32 * len(names)))
    axes = figure.subplots(1, 3, sharey=True)
    for axis, what in zip(axes, ("num_samples", "num_words", "num_images"), strict=True):
        values = [getattr(each, what) for each in sizes]
        total = sum(values)
        bars = axis.barh(names, values, color="tab:blue")
        labels = [f"{value:,} ({value / total:.0%})" if total else "0" for value in values]
        axis.bar_label(bars, labels=labels, padding=3, fontsize=8)
        axis.set(title=f"{what.removeprefix('num_')}: {total:,}", xlim=(0, 1.45 * max([*values, 1])))
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle(f"Mixture {fit_line(mixture.file.name)}".replace("$", r"\$"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"The plot '{path}' cannot be written: {error}.") from error
