"""What is asked about bars, in DVQA's three kinds: structure, data and reasoning. Every answer follows from the data.

The answers are numbers, labels, "yes" and "no". Questions with several right answers, such as the largest of two equal
bars, are not asked.

Source: the kinds of question and their style, DVQA (arXiv:1801.08163, section 3.2 and figure 1). The sentences are not
a copy of its templates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.synth.scene import Scene, Turn

# Appends a question: its task, its words, its answer.
Ask = Callable[[str, str, object], None]

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Domain:
    """What a chart is about: the words of its questions, with places for labels ``a`` and ``b`` and a number ``n``."""

    title: str
    value: str
    value_in: str
    largest: str
    smallest: str
    more_than: str
    compare: str
    largest_sum: str
    smallest_sum: str


DOMAINS = (
    Domain(
        title="Units sold",
        value="How many units of the item {a} were sold?",
        value_in="How many units of the item {a} were sold in the store {b}?",
        largest="Which item sold the most units?",
        smallest="Which item sold the least units?",
        more_than="How many items sold more than {n} units?",
        compare="Did the item {a} sell more units than {b}?",
        largest_sum="Which item sold the most units summed across all the stores?",
        smallest_sum="Which item sold the least units summed across all the stores?",
    ),
    Domain(
        title="Accuracy",
        value="What is the accuracy of the algorithm {a}?",
        value_in="What is the accuracy of the algorithm {a} in the dataset {b}?",
        largest="Which algorithm has the highest accuracy?",
        smallest="Which algorithm has the lowest accuracy?",
        more_than="How many algorithms have accuracies higher than {n}?",
        compare="Is the accuracy of the algorithm {a} larger than {b}?",
        largest_sum="Which algorithm has the highest accuracy summed across all the datasets?",
        smallest_sum="Which algorithm has the lowest accuracy summed across all the datasets?",
    ),
    Domain(
        title="Preferences",
        value="How many people prefer the object {a}?",
        value_in="How many people prefer the object {a} in the category {b}?",
        largest="Which object is the most preferred?",
        smallest="Which object is the least preferred?",
        more_than="How many objects are preferred by more than {n} people?",
        compare="Is the object {a} preferred by more people than {b}?",
        largest_sum="Which object is preferred by the most people summed across all the categories?",
        smallest_sum="Which object is preferred by the least people summed across all the categories?",
    ),
)


@dataclass(frozen=True)
class BarData:
    """The data of a chart.

    Attributes:
        arrangement: "single", "grouped" or "stacked".
        scale: "linear", "percentage" or "logarithmic".
        series: the legend's labels; one empty label for single bars.
        groups: the labels along the axis, from the left or from the top.
        values: by series and group.
    """

    domain: Domain
    arrangement: str
    is_horizontal: bool
    scale: str
    series: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """The sum of each group."""
        return tuple(sum(column) for column in zip(*self.values, strict=True))

    @property
    def side(self) -> str:
        """Where counting along the axis begins."""
        return "top" if self.is_horizontal else "left"

    def describe(self) -> str:
        """A caption with all values."""
        rows = [
            f"{f'{name} ' if name else ''}{group} {value}"
            for name, values in zip(self.series, self.values, strict=True)
            for group, value in zip(self.groups, values, strict=True)
        ]
        return f"A chart of {self.arrangement} bars: {', '.join(rows)}."


def ask_about_bars(rng: random.Random, scene: Scene, data: BarData, colors: Sequence[str], is_solid: bool) -> None:
    """Appends the questions; ``colors``: the fills of the series, or of single bars."""

    def ask(task: str, question: str, answer: object) -> None:
        scene.turns.append(Turn(question, str(answer), task))

    _ask_structure(ask, data, is_solid)
    if data.arrangement == "single":
        _ask_single(rng, ask, data)
    else:
        _ask_series(rng, ask, data, colors)
    for scale in ("logarithmic", "percentage"):
        question = f"Are the values in the chart presented in a {scale} scale?"
        ask("chart data", question, say(data.scale == scale))
    noun = {"single": "bar", "grouped": "group of bars", "stacked": "stack of bars"}[data.arrangement]
    i = rng.randrange(len(data.groups))
    question = f"What is the label of the {_ORDINALS[i]} {noun} from the {data.side}?"
    ask("chart data", question, data.groups[i])
    values = [value for row in data.values for value in row]
    ask("chart reasoning", "What is the highest value in the whole chart?", max(values))
    ask("chart reasoning", "What is the lowest value in the whole chart?", min(values))


def say(fact: bool) -> str:
    """The answer to a question of fact: "yes" or "no"."""
    return "yes" if fact else "no"


def _ask_structure(ask: Ask, data: BarData, is_solid: bool) -> None:
    task, num_series, num_groups = "chart structure", len(data.series), len(data.groups)
    if data.arrangement == "stacked":
        ask(task, "How many stacks of bars are there?", num_groups)
        ask(task, "How many bars are there in each stack?", num_series)
    else:
        ask(task, "How many bars are there?", num_series * num_groups)
    if data.arrangement == "grouped":
        ask(task, "How many groups of bars are there?", num_groups)
        ask(task, "How many bars are there per group?", num_series)
    ask(task, "Are the bars horizontal?", say(data.is_horizontal))
    ask(task, "Does the chart contain stacked bars?", say(data.arrangement == "stacked"))
    ask(task, "Is each bar a single solid color without patterns?", say(is_solid))


def _ask_single(rng: random.Random, ask: Ask, data: BarData) -> None:
    domain, names, values = data.domain, data.groups, data.values[0]
    for i in rng.sample(range(len(names)), 2):
        ask("chart data", domain.value.format(a=names[i]), values[i])
    _ask_extremes(ask, domain.largest, domain.smallest, names, values)
    limit = rng.choice(values)
    ask("chart reasoning", domain.more_than.format(n=limit), sum(value > limit for value in values))
    a, b = rng.sample(range(len(names)), 2)
    ask("chart reasoning", domain.compare.format(a=names[a], b=names[b]), say(values[a] > values[b]))


def _ask_series(rng: random.Random, ask: Ask, data: BarData, colors: Sequence[str]) -> None:
    domain = data.domain
    i = rng.randrange(len(data.series))
    ask("chart data", f"What element does the {colors[i]} color represent?", data.series[i])
    places = [(i, j) for i in range(len(data.series)) for j in range(len(data.groups))]
    for i, j in rng.sample(places, 2):
        ask("chart data", domain.value_in.format(a=data.series[i], b=data.groups[j]), data.values[i][j])
    sums = [sum(row) for row in data.values]
    _ask_extremes(ask, domain.largest_sum, domain.smallest_sum, data.series, sums)
    j = rng.randrange(len(data.groups))
    a, b = rng.sample(range(len(data.series)), 2)
    compared = domain.compare.format(a=data.series[a], b=data.series[b]).rstrip("?")
    question = f"{compared} in {data.groups[j]}?"
    ask("chart reasoning", question, say(data.values[a][j] > data.values[b][j]))


def _ask_extremes(ask: Ask, largest: str, smallest: str, names: Sequence[str], values: Sequence[int]) -> None:
    for question, extreme in ((largest, max(values)), (smallest, min(values))):
        if list(values).count(extreme) == 1:
            ask("chart reasoning", question, names[list(values).index(extreme)])
