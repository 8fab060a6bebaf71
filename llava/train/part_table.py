"""The table of parts that a run prints before it starts and then asserts: modules, parameters, rate, weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from llava.train.parts import PartParameter, Parts, list_parts


def build_table(model: Any, trainable: Sequence[PartParameter], lr: float, weight_decay: float) -> Table:
    """A row for each part, learning rate and weight decay that is trained, and one for what is frozen of each part.

    Args:
        model: a LLaVA model, or PEFT's wrapper of one.
    """
    table = Table(box=box.SIMPLE_HEAD, title="What is trained", title_justify="left", pad_edge=False)
    for name in ("part", "modules", "parameters", "rate", "decay"):
        is_text = name in ("part", "modules")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "modules", overflow="fold")
    trained = {id(each.parameter) for each in trainable}
    for part, members in list_parts(model).items():
        rows: dict[tuple[float, float], list[PartParameter]] = {}
        for each in trainable:
            if each.part == part:
                decay = 0.0 if each.is_norm_or_bias else weight_decay
                rows.setdefault((lr * each.scale, decay), []).append(each)
        for (rate, decay), chosen in rows.items():
            modules = ", ".join(dict.fromkeys(_name_module(each.path) for each in chosen))
            count = sum(each.parameter.numel() for each in chosen)
            table.add_row(part, modules, f"{count:,}", f"{rate:.3g}", f"{decay:.3g}")
        frozen = [each for each in _list_parameters({part: members}) if id(each) not in trained]
        if frozen:
            count = sum(each.numel() for each in frozen)
            modules = "the rest" if rows else ", ".join(dict.fromkeys(map(_name_module, members)))
            table.add_row(part, modules, f"{count:,}", "frozen", "")
    return table


def print_table(table: Table) -> None:
    """Prints the table, as wide as its cells need where the output is no terminal."""
    console = Console()
    Console(width=console.width if console.is_terminal else 140, highlight=False).print(table)


def _name_module(path: str) -> str:
    """The part of a parameter's path that says which module it is in, such as ``layers`` or ``layers (adapters)``."""
    first = path.split(".")[0]
    return f"{first} (adapters)" if "lora_" in path else first


def _list_parameters(parts: Parts) -> list[nn.Parameter]:
    """Every parameter of these parts, once."""
    found: dict[int, nn.Parameter] = {}
    for members in parts.values():
        for member in members.values():
            for parameter in [member] if isinstance(member, nn.Parameter) else member.parameters():
                found.setdefault(id(parameter), parameter)
    return list(found.values())
