"""Records of bar charts and pies: values, the largest and the smallest part, comparisons, colours and titles."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from llava.model.lexical.description import Bar, ChartLine, ChartTable, describe, find_series
from llava.scratch.talking.drawn_values import CITIES, MONTHS, draw_apart, draw_label
from llava.scratch.talking.seen_records import (
    Record,
    ask_description,
    ask_for_option,
    ask_unknown,
    pick,
    place_row,
)
from llava.synth.scene import SCENE_COLORS
from llava.text import list_all

TOPICS = (
    "Units sold;Sales;Visitors;Revenue;Rainfall;Votes;Population;Score;Temperature;Production;Students;Profit;"
    "Downloads;Sales by product;Votes by party;Visitors by month;Average speed;Hours of sleep;Books read;Energy use"
).split(";")
LABELS = (
    MONTHS,
    "Mon Tue Wed Thu Fri Sat Sun".split(),
    "Apples Pears Plums Grapes Lemons Kiwis Bananas".split(),
    "North South East West Center".split(),
    list("ABCDEFGH"),
    "2018 2019 2020 2021 2022 2023 2024".split(),
    "Q1 Q2 Q3 Q4".split(),
    CITIES,
    "Cats Dogs Birds Fish Horses".split(),
    "Tea Coffee Juice Water Milk Soda".split(),
    "Red Blue Green Gold".split(),
)


X_NAMES = ("Month", "Year", "Day", "Week", "Quarter", "Team", "Product", "City", "Region", "Group", "Country", "Time")
Y_NAMES = (
    "Value", "Number", "Percent", "Sales", "Count", "Revenue", "Units", "Score", "Visitors", "Price", "Temperature",
    "Millions", "Hours",
)  # fmt: skip
_SERIES = ("2019 2020 2021 2022 2023".split(), "Men Women Children".split(), "North South East West".split(),
           "Tea Coffee Milk".split(), "Plan Actual".split())  # fmt: skip


def draw_chart_record(rng: random.Random) -> Record:
    """A bar chart with two to nine bars, in one colour, each in its own or in groups; or a pie."""
    draw = rng.random()
    chart = _draw_pie(rng) if draw < 0.2 else _draw_groups(rng) if draw < 0.4 else _draw_chart(rng)
    chart = replace(chart, title=rng.choice(TOPICS) if rng.random() < 0.7 else "")
    texts: list[str] = []
    if not chart.is_pie:
        chart, texts = name_axes(rng, chart)
        # What did not go into the table is told as text: a title always does, numbers at the axis often do not.
        if rng.random() < 0.3:
            most = max(bar.size for bar in chart.bars)
            texts += reversed([f"{i * most / 4:g}" for i in range(5)])
    if rng.random() < 0.3:
        texts.append(" | ".join(dict.fromkeys(bar.label for bar in chart.bars)))
    record = Record("chart", describe_with(chart, texts))
    _ask_for_extremes(rng, record, chart)
    _ask_for_values(rng, record, chart)
    _ask_about_chart(rng, record, chart)
    ask_for_axes(rng, record, chart)
    _ask_about_series(rng, record, find_series(chart))
    ask_unknown(rng, record, rate=0.4)
    return record.shorten(rng)


def describe_with(chart: ChartTable, texts: Sequence[str]) -> str:
    """The description of a chart and of lines of text beside it."""
    lines = [line for y, text in enumerate(texts) for line in place_row(y, text)]
    return describe((640, 480), lines, [], chart)


def name_axes(rng: random.Random, chart: ChartTable) -> tuple[ChartTable, list[str]]:
    """The chart with names of its axes, where it has some; else perhaps one of them as a text beside it."""
    x, y = rng.choice(X_NAMES), rng.choice(Y_NAMES)
    x, y = (y, x) if chart.is_horizontal else (x, y)
    draw = rng.random()
    if draw < 0.6:
        return replace(chart, x_name=x if draw < 0.5 else "", y_name=y if draw < 0.4 else ""), []
    return chart, [rng.choice((x, y))] if draw < 0.75 else []


def ask_for_axes(rng: random.Random, record: Record, chart: ChartTable) -> None:
    """Adds questions for the names of the axes."""
    for axis, names, name in (("x", "horizontal", chart.x_name), ("y", "vertical", chart.y_name)):
        question = pick(rng, f"What is the {axis} axis called?", f"What is the label of the {axis} axis?",
                        f"What does the {axis} axis show?", f"What is on the {names} axis?",
                        f"What is the {axis}-axis label?")  # fmt: skip
        if name:
            record.ask(question, pick(rng, f"The {axis} axis is called {name}.", f"The {axis} axis shows {name}."))
        elif not chart.is_pie and "Text" not in record.description and rng.random() < 0.1:
            record.ask(question, f"The {axis} axis has no name.")


def _draw_chart(rng: random.Random) -> ChartTable:
    labels = draw_apart(rng, draw_label, 8) if rng.random() < 0.6 else rng.choice(LABELS)
    count = rng.randint(2, min(8, len(labels)))
    start = rng.randrange(len(labels) - count + 1)
    scale = rng.choice((1, 1, 10, 100, 0.1))
    values = [value * scale for value in rng.sample(range(1, 100), count)]
    if rng.random() < 0.5:
        colours = rng.sample([colour for colour in SCENE_COLORS if colour != "black"], count)
    else:
        colours = [rng.choice(SCENE_COLORS)] * count
    shown = zip(labels[start : start + count], colours, values, strict=True)
    bars = tuple(Bar(label, colour, f"{value:g}", value) for label, colour, value in shown)
    return ChartTable("", bars, is_horizontal=rng.random() < 0.25)


def _draw_groups(rng: random.Random) -> ChartTable:
    """Bars of two or three series, each with its own colour: a bar's label is its group's and its series'."""
    series = rng.choice(_SERIES)
    series = series[: rng.randint(2, min(3, len(series)))]
    labels = rng.choice([labels for labels in LABELS if not set(labels) & set(series)])
    labels = labels[: rng.randint(2, 9 // len(series))]
    scale = rng.choice((1, 1, 10, 100, 0.1))
    values = iter([value * scale for value in rng.sample(range(1, 100), len(labels) * len(series))])
    colours = rng.sample(SCENE_COLORS, len(series))
    pairs = [(f"{label} {name}", colour) for label in labels for name, colour in zip(series, colours, strict=True)]
    bars = tuple(Bar(label, colour, f"{value:g}", value) for (label, colour), value in zip(pairs, values, strict=False))
    return ChartTable("", bars, is_horizontal=rng.random() < 0.25)


def _draw_pie(rng: random.Random) -> ChartTable:
    """Two to six parts that make 100 %, to a whole percent or a tenth, each with its own colour."""
    labels = draw_apart(rng, draw_label, 6) if rng.random() < 0.5 else rng.choice(LABELS)
    count = rng.randint(2, min(6, len(labels)))
    parts = rng.sample(range(4, 100), count)
    digits = rng.choice((0, 0, 1))
    shares = [round(100 * part / sum(parts), digits) for part in parts]
    if len(set(shares)) < count:
        return _draw_pie(rng)
    colours = rng.sample(SCENE_COLORS, count)
    bars = tuple(Bar(label, colour, f"{share:.{digits}f}%", share)
                 for label, colour, share in zip(rng.sample(labels, count), colours, shares, strict=True))  # fmt: skip
    return ChartTable("", bars, is_pie=True)


def _ask_about_series(rng: random.Random, record: Record, series: Sequence[ChartLine]) -> None:
    """What is highest in a series and in a group, and how two series compare in a group."""
    if not series:
        return
    for each in rng.sample(series, 2):
        word, most = rng.choice((("most", max), ("highest", max), ("fewest", min), ("lowest", min)))
        best = most(each.points, key=lambda point: point.size)
        question = pick(rng, "Where is {0} {1}?", "Which has the {1} {0}?", "For which is {0} the {1}?",
                        "In which group is {0} {1}?")  # fmt: skip
        record.ask(question.format(each.name, word), f"{each.name} is {word} in {best.label}, with {best.value}.")
    record.ask(pick(rng, "What do the colors stand for?", "Which series are there?", "What does the legend say?"),
               f"The series are {list_all([each.name for each in series])}.")  # fmt: skip
    each = rng.choice(series)
    record.ask(f"What color is {each.name}?", f"{each.name} is {each.colour}.")
    record.ask(f"What does {each.colour} stand for?", f"{each.colour.capitalize()} stands for {each.name}.")
    for at in rng.sample(range(len(series[0].points)), 2):
        compare_at(rng, record, series, at)


def compare_at(rng: random.Random, record: Record, lines: Sequence[ChartLine], at: int) -> None:
    """Adds questions which of several lines or series is the highest at one of their points, and whether one is."""
    points, label = [line.points[at] for line in lines], lines[0].points[at].label
    ranked = sorted(zip(points, lines, strict=True), key=lambda pair: -pair[0].size)
    (best, top), (second, other) = ranked[:2]
    if best.size == second.size:
        return
    word = "higher" if len(lines) == 2 else "the highest"
    question = pick(rng, "Which is {0} at {1}?", "Which is {0} in {1}?", "Which one is {0} for {1}?",
                    "What is {0} in {1}?", "Which has more in {1}?", "Who has the most in {1}?",
                    "Which is larger in {1}?")  # fmt: skip
    listed = list_all([f"{line.name} is {point.value}" for point, line in zip(points, lines, strict=True)])
    record.ask(question.format(word, label), f"At {label}, {top.name} is the highest: {listed}.")
    a, b = (top, other) if rng.random() < 0.5 else (other, top)
    question = pick(rng, "Is {} higher than {} in {}?", "Is {} more than {} at {}?", "Are there more {} than {} in {}?")
    word = "Yes" if a is top else "No"
    record.ask(question.format(a.name, b.name, label), f"{word}, {top.name} is the highest in {label}: {listed}.")


def _ask_for_extremes(rng: random.Random, record: Record, chart: ChartTable) -> None:
    best, worst = (most(chart.bars, key=lambda bar: bar.size) for most in (max, min))
    part = "part" if chart.is_pie else "bar"
    question = pick(rng, f"Which {part} is the largest?", "Which is the largest?", f"What is the largest {part}?",
                    "Which has the highest value?", "What has the largest value?",
                    "Which slice is the largest?" if chart.is_pie else "Which bar is the highest?")  # fmt: skip
    answer = pick(rng, f"The largest {part} is {best.label}.", f"{best.label} is the largest, with {best.value}.")
    record.ask(question, answer)
    question = pick(rng, f"Which {part} is the smallest?", "Which is the smallest?", "Which has the lowest value?",
                    "Which slice is the smallest?" if chart.is_pie else "Which bar is the lowest?")  # fmt: skip
    ask_for_option(rng, record, f"Which {part} is the largest?", best.label, [bar.label for bar in chart.bars])
    answer = pick(rng, f"The smallest {part} is {worst.label}.", f"{worst.label} is the smallest, with {worst.value}.")
    record.ask(question, answer)


def _ask_for_values(rng: random.Random, record: Record, chart: ChartTable) -> None:
    part = "part" if chart.is_pie else "bar"
    for bar in rng.sample(chart.bars, min(3, len(chart.bars))):
        ways = ["What is the value of {}?", "How much is {}?", "What value does {} have?", "What is the value for {}?"]
        if chart.is_pie:
            ways += ["What share does {} have?", "What percentage is {}?", "How many percent is {}?"]
        else:
            ways += ["How high is the bar {}?", "How high is {}?", "How many for {}?", "What number does {} have?"]
        answer = pick(rng, f"The value of {bar.label} is {bar.value}.", f"{bar.label} is {bar.value}.")
        record.ask(rng.choice(ways).format(bar.label), answer)
    a, b = rng.sample(chart.bars, 2)
    word = rng.choice(("larger", "smaller", "higher", "lower", "greater"))
    holds = (a.size > b.size) == (word in ("larger", "higher", "greater"))
    both = f"{a.label} is {a.value} and {b.label} is {b.value}."
    record.ask(f"Is {a.label} {word} than {b.label}?", f"{'Yes' if holds else 'No'}, {both}")
    colours = [bar.colour for bar in chart.bars]
    if a.colour != b.colour:
        names = (f"the {part} {a.label}", f"the {'slice' if chart.is_pie else 'bar'} {a.label}", a.label)
        question = pick(rng, "What color is {}?", "Which color is {}?", "Which color does {} have?")
        question = question.format(rng.choice(names))
        record.ask(question, f"The {part} {a.label} is {a.colour}.")
    if colours.count(a.colour) == 1:
        record.ask(f"What does the {a.colour} {part} show?", f"The {a.colour} {part} shows {a.label}, {a.value}.")


def _ask_about_chart(rng: random.Random, record: Record, chart: ChartTable) -> None:
    count = len(chart.bars)
    part, kind = ("part", "pie chart") if chart.is_pie else ("bar", "bar chart")
    question = pick(rng, f"How many {part}s are there?", f"How many {part}s does the chart have?",
                    f"How many {'slices' if chart.is_pie else 'columns'} are there?",
                    f"Count the {part}s.")  # fmt: skip
    record.ask(question, f"There are {count} {part}s.")
    ask_for_title(rng, record, chart)
    listed = ", ".join(f"{bar.label} {bar.value}" for bar in chart.bars)
    record.ask(pick(rng, "List all values.", "What are the values?"), f"The values are: {listed}.")
    record.ask("What kind of chart is this?", f"It is a {kind}.")
    about = f' with the title "{chart.title}"' if chart.title else ""
    record.ask(ask_description(rng), f"It is a {kind}{about}. It has {count} {part}s: {listed}.")


def ask_for_title(rng: random.Random, record: Record, chart: ChartTable) -> None:
    """Adds a question for the title, also where there is none."""
    if chart.title:
        question = pick(rng, "What is the title of the chart?", "What is the title?", "What is the chart about?")
        record.ask(question, f"The title is {chart.title}.")
    else:
        record.ask("What is the title of the chart?", "The chart has no title.")
