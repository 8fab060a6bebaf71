"""Records of bar charts: values, the largest and the smallest bar, comparisons, colours and titles."""

from __future__ import annotations

import random

from llava.model.lexical.description import Bar, ChartTable, describe
from llava.scratch.talking.drawn_values import CITIES, MONTHS
from llava.scratch.talking.seen_records import Record, ask_description, ask_unknown, pick, place_row
from llava.synth import words
from llava.synth.scene import SCENE_COLORS

_TOPICS = (
    "Units sold;Sales;Visitors;Revenue;Rainfall;Votes;Population;Score;Temperature;Production;Students;Profit;"
    "Downloads;Sales by product;Votes by party;Visitors by month;Average speed;Hours of sleep;Books read;Energy use"
).split(";")
_LABELS = (
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


def draw_chart_record(rng: random.Random) -> Record:
    """A bar chart with two to eight bars, in one colour or each in its own."""
    chart = _draw_chart(rng)
    values = [bar.size for bar in chart.bars]
    texts = [chart.title] if chart.title else []
    axis = rng.choice(("", "", "Value", "Month", "Number", "Percent", "Year"))
    texts += [axis] if axis else []
    if rng.random() < 0.7:
        texts += reversed([f"{i * max(values) / 4:g}" for i in range(5)])
    texts.append(" | ".join(bar.label for bar in chart.bars))
    lines = [line for y, text in enumerate(texts) for line in place_row(y, text)]
    record = Record("chart", describe((640, 480), lines, [], chart))
    _ask_for_extremes(rng, record, chart)
    _ask_for_values(rng, record, chart)
    _ask_about_chart(rng, record, chart)
    ask_unknown(rng, record, rate=0.4)
    return record.shorten(rng)


def _draw_chart(rng: random.Random) -> ChartTable:
    labels = rng.choice(_LABELS)
    if rng.random() < 0.35:
        labels = list(dict.fromkeys(words.draw_word(rng, False, 7).lower() for _ in range(8)))
    count = rng.randint(2, min(8, len(labels)))
    start = rng.randrange(len(labels) - count + 1)
    scale = rng.choice((1, 1, 10, 100, 0.1))
    values = [value * scale for value in rng.sample(range(1, 100), count)]
    if rng.random() < 0.5:
        colours = rng.sample([colour for colour in SCENE_COLORS if colour != "black"], count)
    else:
        colours = [rng.choice(SCENE_COLORS)] * count
    title = rng.choice(_TOPICS) if rng.random() < 0.7 else ""
    shown = zip(labels[start : start + count], colours, values, strict=True)
    bars = tuple(Bar(label, colour, f"{value:g}", value) for label, colour, value in shown)
    return ChartTable(title, bars, is_horizontal=rng.random() < 0.25)


def _ask_for_extremes(rng: random.Random, record: Record, chart: ChartTable) -> None:
    best, worst = (most(chart.bars, key=lambda bar: bar.size) for most in (max, min))
    question = pick(rng, "Which bar is the largest?", "Which is the largest?", "What is the largest bar?",
                    "Which bar is the highest?", "Which has the highest value?",
                    "What has the largest value?")  # fmt: skip
    answer = pick(rng, f"The largest bar is {best.label}.", f"{best.label} is the largest, with {best.value}.")
    record.ask(question, answer)
    question = pick(rng, "Which bar is the smallest?", "Which is the smallest?", "Which bar is the lowest?",
                    "Which has the lowest value?")  # fmt: skip
    answer = pick(rng, f"The smallest bar is {worst.label}.", f"{worst.label} is the smallest, with {worst.value}.")
    record.ask(question, answer)


def _ask_for_values(rng: random.Random, record: Record, chart: ChartTable) -> None:
    for bar in rng.sample(chart.bars, 2):
        question = pick(rng, "What is the value of {}?", "How much is {}?", "How high is the bar {}?",
                        "What value does {} have?", "What is the value for {}?", "How many for {}?")  # fmt: skip
        answer = pick(rng, f"The value of {bar.label} is {bar.value}.", f"{bar.label} is {bar.value}.")
        record.ask(question.format(bar.label), answer)
    a, b = rng.sample(chart.bars, 2)
    word = rng.choice(("larger", "smaller", "higher", "lower", "greater"))
    holds = (a.size > b.size) == (word in ("larger", "higher", "greater"))
    both = f"{a.label} is {a.value} and {b.label} is {b.value}."
    record.ask(f"Is {a.label} {word} than {b.label}?", f"{'Yes' if holds else 'No'}, {both}")
    if a.colour != b.colour:
        question = pick(rng, f"What color is the bar {a.label}?", f"Which color is {a.label}?")
        record.ask(question, f"The bar {a.label} is {a.colour}.")
        record.ask(f"What does the {a.colour} bar show?", f"The {a.colour} bar shows {a.label}, {a.value}.")


def _ask_about_chart(rng: random.Random, record: Record, chart: ChartTable) -> None:
    count = len(chart.bars)
    question = pick(rng, "How many bars are there?", "How many bars does the chart have?", "Count the bars.",
                    "How many bars are shown?")  # fmt: skip
    record.ask(question, f"There are {count} bars.")
    if chart.title:
        question = pick(rng, "What is the title of the chart?", "What is the title?", "What is the chart about?")
        record.ask(question, f"The title is {chart.title}.")
    else:
        record.ask("What is the title of the chart?", "The chart has no title.")
    listed = ", ".join(f"{bar.label} {bar.value}" for bar in chart.bars)
    record.ask(pick(rng, "List all values.", "What are the values?"), f"The values are: {listed}.")
    about = f' with the title "{chart.title}"' if chart.title else ""
    record.ask(ask_description(rng), f"It is a bar chart{about}. It has {count} bars: {listed}.")
