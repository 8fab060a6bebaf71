"""Records of line charts: values, when a line is highest or lowest, whether it rises, which of several is higher."""

from __future__ import annotations

import random

from llava.model.lexical.description import Bar, ChartLine, ChartTable
from llava.scratch.talking.chart_records import (
    LABELS,
    TOPICS,
    ask_for_axes,
    ask_for_title,
    compare_at,
    describe_with,
    name_axes,
)
from llava.scratch.talking.drawn_values import CITIES
from llava.scratch.talking.seen_records import Record, ask_description, ask_unknown, pick
from llava.synth import words
from llava.synth.scene import SCENE_COLORS
from llava.text import list_all

_NAMES = (
    CITIES,
    "Tea Coffee Milk Juice Water".split(),
    "North South East West".split(),
    "2019 2020 2021 2022 2023".split(),
    "Plan Actual".split(),
    "Men Women".split(),
    "Min Max Mean".split(),
    list("ABCD"),
    "Series 1;Series 2;Series 3;Series 4".split(";"),
)
_MORE_LABELS = ([f"{hour}:00" for hour in range(6, 22, 2)], list("0123456789"), "0 2 4 6 8 10 12".split(),
                "1990 1995 2000 2005 2010 2015 2020".split(), "0 10 20 30 40 50 60".split())  # fmt: skip


def draw_line_chart_record(rng: random.Random) -> Record:
    """A line chart of one line, in half of the records, or of two to four; three to nine points each."""
    chart = _draw_chart(rng)
    chart, texts = name_axes(rng, chart)
    if rng.random() < 0.2:
        most = max(point.size for line in chart.lines for point in line.points)
        texts += reversed([f"{i * most / 4:g}" for i in range(5)])
    record = Record("chart", describe_with(chart, texts))
    if len(chart.lines) == 1:
        _ask_about_line(rng, record, chart.lines[0])
    else:
        _ask_about_lines(rng, record, chart)
    _ask_about_chart(rng, record, chart)
    ask_for_title(rng, record, chart)
    ask_for_axes(rng, record, chart)
    ask_unknown(rng, record, rate=0.3)
    return record.shorten(rng)


def _draw_chart(rng: random.Random) -> ChartTable:
    count = 1 if rng.random() < 0.5 else rng.choice((2, 2, 3, 3, 4))
    labels = rng.choice((*LABELS, *_MORE_LABELS))
    num_points = rng.randint(3, min(len(labels), 9 if count < 3 else 6))
    start = rng.randrange(len(labels) - num_points + 1)
    labels = labels[start : start + num_points]
    names = list(rng.choice([names for names in _NAMES if len(names) >= count and not set(names) & set(labels)]))
    if rng.random() < 0.3:
        names = [word for word in (words.draw_word(rng, False, 7).capitalize() for _ in range(8)) if word not in labels]
    names = rng.sample(list(dict.fromkeys(names)), count) if count > 1 or rng.random() < 0.25 else [""]
    colours = rng.sample([colour for colour in SCENE_COLORS if colour != "white"], count)
    scale = rng.choice((1, 1, 10, 100, 1000, 0.1))
    lines = []
    for name, colour in zip(names, colours, strict=True):
        values = [value * scale for value in _draw_values(rng, num_points)]
        points = tuple(Bar(label, colour, f"{v:g}", v) for label, v in zip(labels, values, strict=True))
        lines.append(ChartLine(name, colour, points))
    return ChartTable(rng.choice(TOPICS) if rng.random() < 0.7 else "", lines=tuple(lines))


def _draw_values(rng: random.Random, count: int) -> list[int]:
    """Different values that rise, fall or wander."""
    values = rng.sample(range(1, 100), count)
    drift = rng.choice((-1, 0, 0, 1))
    if drift:
        values = sorted(values, reverse=drift < 0)
        if rng.random() < 0.6:
            at = rng.randrange(count - 1)
            values[at], values[at + 1] = values[at + 1], values[at]
    return values


def _ask_about_line(rng: random.Random, record: Record, line: ChartLine) -> None:
    for point in rng.sample(line.points, 2):
        at = point.label
        question = pick(rng, f"What is the value at {at}?", f"What is the value in {at}?", f"How much is it at {at}?",
                        f"What value does the line have at {at}?", f"What was the value for {at}?",
                        f"What does the chart show for {at}?")  # fmt: skip
        record.ask(question, pick(rng, f"The value at {at} is {point.value}.", f"At {at} it is {point.value}."))
    high, low = (most(line.points, key=lambda point: point.size) for most in (max, min))
    question = pick(rng, "When is the line highest?", "Where is the peak?", "When is the value the highest?",
                    "At which point is the line highest?", "Which point is the highest?")  # fmt: skip
    record.ask(question, f"It is highest at {high.label}, with {high.value}.")
    question = pick(rng, "When is the line lowest?", "When is the value the lowest?", "Which point is the lowest?",
                    "At which point is the line lowest?")  # fmt: skip
    record.ask(question, f"It is lowest at {low.label}, with {low.value}.")
    record.ask(pick(rng, "What is the highest value?", "What is the maximum?", "What is the largest value?"),
               f"The highest value is {high.value}, at {high.label}.")  # fmt: skip
    record.ask(pick(rng, "What is the lowest value?", "What is the minimum?", "What is the smallest value?"),
               f"The lowest value is {low.value}, at {low.label}.")  # fmt: skip
    question = pick(rng, "Does the line rise or fall?", "Does it go up or down?", "What is the trend?",
                    "Is the trend up or down?", "How does the value change?")  # fmt: skip
    first, last = line.points[0], line.points[-1]
    record.ask(question, f"It {line.trend}, from {first.value} to {last.value}.")
    a, b = rng.sample(line.points, 2)
    word = rng.choice(("higher", "lower"))
    holds = (a.size > b.size) == (word == "higher")
    both = f"{a.label} is {a.value} and {b.label} is {b.value}."
    record.ask(f"Is it {word} at {a.label} than at {b.label}?", f"{'Yes' if holds else 'No'}, {both}")


def _ask_about_lines(rng: random.Random, record: Record, chart: ChartTable) -> None:
    for line in rng.sample(chart.lines, 2):
        point = rng.choice(line.points)
        question = pick(rng, "What is the value of {0} at {1}?", "How much is {0} at {1}?", "What is {0} in {1}?",
                        "What value does {0} have at {1}?", "What is the {0} value for {1}?")  # fmt: skip
        answer = pick(rng, f"{line.name} is {point.value} at {point.label}.",
                      f"The value of {line.name} at {point.label} is {point.value}.")  # fmt: skip
        record.ask(question.format(line.name, point.label), answer)
        which, most = rng.choice((("highest", max), ("lowest", min)))
        best = most(line.points, key=lambda point: point.size)
        answer = f"{line.name} is {which} at {best.label}, with {best.value}."
        record.ask(pick(rng, f"When is {line.name} {which}?", f"Where is {line.name} {which}?"), answer)
        answer = f"{line.name} {line.trend}, from {line.points[0].value} to {line.points[-1].value}."
        record.ask(pick(rng, f"Does {line.name} rise or fall?", f"What is the trend of {line.name}?"), answer)
        record.ask(f"What color is the line of {line.name}?", f"The line of {line.name} is {line.colour}.")
        record.ask(f"What is the {line.colour} line?", f"The {line.colour} line is {line.name}.")
    _compare_lines(rng, record, chart)


def _compare_lines(rng: random.Random, record: Record, chart: ChartTable) -> None:
    for at in rng.sample(range(len(chart.lines[0].points)), 2):
        compare_at(rng, record, chart.lines, at)
    for verbs, trend in ((("rises", "goes up", "increases", "grows"), "rises overall"),
                         (("falls", "goes down", "decreases", "drops"), "falls overall")):  # fmt: skip
        names = [line.name for line in chart.lines if line.trend == trend]
        word = rng.choice(verbs)
        plural = {"goes up": "go up", "goes down": "go down"}.get(word, word.removesuffix("s"))
        answer = f"{list_all(names)} {word if len(names) == 1 else plural}." if names else f"No line {word} overall."
        record.ask(pick(rng, "Which line {}?", "Which one {}?", "What {}?", "Which of them {}?").format(word), answer)
    means = {line.name: sum(point.size for point in line.points) for line in chart.lines}
    top = max(means, key=lambda name: means[name])
    question = pick(rng, "Which line is the highest overall?", "Which line is higher overall?", "Which is higher?")
    record.ask(question, f"{top} is the highest overall.")
    line, point = max(((line, point) for line in chart.lines for point in line.points), key=lambda pair: pair[1].size)
    question = pick(rng, "What is the highest value?", "Which line reaches the highest value?")
    record.ask(question, f"The highest value is {point.value}, of {line.name} at {point.label}.")


def _ask_about_chart(rng: random.Random, record: Record, chart: ChartTable) -> None:
    first, count = chart.lines[0], len(chart.lines)
    points = [point.label for point in first.points]
    question = pick(rng, "How many points does the line have?", "How many points are there?", "Count the points.",
                    "How many data points are shown?")  # fmt: skip
    record.ask(question, f"There are {len(points)} points{'' if count == 1 else ' on each line'}.")
    question = pick(rng, "How many lines are there?", "How many lines does the chart have?", "Count the lines.")
    record.ask(question, "There is 1 line." if count == 1 else f"There are {count} lines.")
    about = f' with the title "{chart.title}"' if chart.title else ""
    kind = pick(rng, "What kind of chart is this?", "What type of chart is it?")
    if count == 1:
        question = pick(rng, "What color is the line?", "Which color does the line have?")
        record.ask(question, f"The line is {first.colour}.")
        listed = ", ".join(f"{point.label} {point.value}" for point in first.points)
        record.ask(pick(rng, "List all values.", "What are the values?"), f"The values are: {listed}.")
        seen = f"It is a line chart{about}. The line {first.trend}: {listed}."
        record.ask(kind, f"It is a line chart with {len(points)} points.")
    else:
        names = list_all([line.name for line in chart.lines])
        record.ask(pick(rng, "Which lines are shown?", "What do the lines stand for?"), f"The lines are {names}.")
        seen = f"It is a line chart{about} with {count} lines: {names}."
        record.ask(kind, f"It is a line chart with {count} lines.")
    record.ask(ask_description(rng), seen)
