"""Charts and tables of the topics that ``topic_grammar`` reads, and what is asked about them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llava.model.lexical.description import Bar, ChartLine, ChartTable, describe
from llava.model.lexical.row_tables import find_extremes
from llava.scratch.talking.chart_records import describe_with
from llava.scratch.talking.page_grammar import as_asked, fill
from llava.scratch.talking.seen_records import Record, ask_for_option, ask_unknown, pick, place_row
from llava.scratch.talking.topic_grammar import Measure, Topic, load_topics
from llava.synth.scene import SCENE_COLORS

# A pie in percent does not tell what is counted: answers tell of shares.
_OF_SHARES = {
    "": ["The share of {key} is {value}.", "{key} has a share of {value}."],
    ">": ["{key} is the largest part, {value}.", "The largest part is {key}."],
    "<": ["{key} is the smallest part, {value}.", "The smallest part is {key}."],
}
# What the kinds of questions ask for, but for those that ask for a name.
_ASKED_FOR = {"": "value", "s": "value", "@": "value", "s>": "series", "s<": "series"}
_TABLE_TOPICS_SHARE, _MOST_BARS, _MOST_GROUPED = 0.45, 9, 12


def draw_topic_record(rng: random.Random) -> Record:
    """A chart or a table about one of the topics."""
    return make_topic_record(rng, rng.choice(load_topics()))


def make_topic_record(rng: random.Random, topic: Topic) -> Record:
    """A record of a topic: a chart of one of its measures, or a table of several."""
    charted = [measure for measure in topic.measures if measure.charts]
    if charted and (len(topic.measures) < 2 or rng.random() >= _TABLE_TOPICS_SHARE):
        return _make_chart(rng, topic, rng.choice(charted))
    return _make_table(rng, topic)


def _make_chart(rng: random.Random, topic: Topic, measure: Measure) -> Record:
    kind = rng.choice(measure.charts)
    series = topic.series if topic.series and "s" in measure.asks and kind != "pie" and rng.random() < 0.6 else []
    series = sorted(rng.sample(series, rng.randint(2, min(3, len(series)))), key=topic.series.index) if series else []
    most = _MOST_GROUPED // len(series) if series else _MOST_BARS
    names = topic.draw_names(rng, rng.randint(2, min(most, 6 if kind == "pie" else most)))
    rows = [measure.draw(rng, len(names)) for _ in series or [""]]
    title = rng.choice(topic.titles) if topic.titles and rng.random() < 0.75 else ""
    labels = names if rng.random() < 0.85 else [name.upper() for name in names]
    head = rng.choice(measure.heads) if rng.random() < 0.5 else ""
    if kind == "line" and topic.is_timed:
        chart = ChartTable(title, lines=_make_lines(rng, measure, labels, series, rows), y_name=head)
    else:
        chart = _make_bars(rng, measure, labels, series, rows, title, is_pie=kind == "pie")
        if not chart.is_pie:
            chart = replace(chart, x_name=head) if chart.is_horizontal else replace(chart, y_name=head)
    texts = [] if title or rng.random() < 0.7 or not topic.titles else [rng.choice(topic.titles)]
    record = Record("chart", describe_with(chart, texts))
    values = [[point.value for point in row] for row in _cells(chart, len(series) or 1)]
    if chart.is_pie and "%" in values[0][0]:
        measure = replace(measure, says=_OF_SHARES, asks={k: measure.asks[k] for k in _OF_SHARES if k in measure.asks})
    if series:
        _ask_for_series(rng, record, measure, names, series, rows, values)
    else:
        _ask_for_values(rng, record, measure, names, rows[0], values[0])
    record.ask(pick(rng, "What is this chart about?", "What does the chart show?", "What is the topic?",
                    "What is compared here?", "What is it about?", "What are these numbers?"),
               f"It is about: {title}." if title else f"The chart shows {topic.keys}.")  # fmt: skip
    if not series:
        _ask_for_count(rng, record, topic, len(names))
    _ask_for_others(rng, record, topic, measure, names)
    ask_unknown(rng, record, rate=0.1)
    return record.shorten(rng)


def _make_lines(
    rng: random.Random, measure: Measure, labels: Sequence[str], series: Sequence[str], rows: Sequence[Sequence[float]]
) -> tuple[ChartLine, ...]:
    colours = rng.sample([colour for colour in SCENE_COLORS if colour != "white"], len(rows))

    def points(row: Sequence[float], colour: str) -> tuple[Bar, ...]:
        return tuple(Bar(label, colour, measure.write(v), v) for label, v in zip(labels, row, strict=True))

    named = zip(series or [""], colours, rows, strict=True)
    return tuple(ChartLine(name, colour, points(row, colour)) for name, colour, row in named)


def _make_bars(
    rng: random.Random,
    measure: Measure,
    names: Sequence[str],
    series: Sequence[str],
    rows: Sequence[Sequence[float]],
    title: str,
    *,
    is_pie: bool,
) -> ChartTable:
    if is_pie:
        total = sum(rows[0]) or 1.0
        shares = [100 * number / total for number in rows[0]]
        written = [measure.write(number) for number in rows[0]]
        if rng.random() < 0.6:
            written = [f"{share:.0f}%" for share in shares]
        colours = rng.sample(SCENE_COLORS, len(names))
        bars = tuple(Bar(*of) for of in zip(names, colours, written, rows[0], strict=True))
        return ChartTable(title, bars, is_pie=True)
    if series:
        colours = rng.sample(SCENE_COLORS, len(series))
        bars = tuple(
            Bar(f"{name} {one}", colour, measure.write(row[i]), row[i])
            for i, name in enumerate(names)
            for one, colour, row in zip(series, colours, rows, strict=True)
        )
    else:
        colours = [rng.choice(SCENE_COLORS)] * len(names)
        if rng.random() < 0.4 and len(names) < len(SCENE_COLORS):
            colours = rng.sample(SCENE_COLORS, len(names))
        bars = tuple(
            Bar(name, colour, measure.write(v), v) for name, colour, v in zip(names, colours, rows[0], strict=True)
        )
    return ChartTable(title, bars, is_horizontal=rng.random() < 0.3)


def _cells(chart: ChartTable, num_series: int) -> list[list[Bar]]:
    """The bars or points of each series."""
    if chart.lines:
        return [list(line.points) for line in chart.lines]
    return [list(chart.bars[i::num_series]) for i in range(num_series)]


def _turn(
    rng: random.Random, measure: Measure, kind: str, asked: Mapping[str, str] | None = None, **told: str
) -> tuple[str, str, str] | None:
    """A question of a kind, its answer with these values, and that in a word or a phrase.

    ``asked``: the values of the question, where they differ.
    """
    if kind not in measure.asks:
        return None
    question = fill(rng.choice(measure.asks[kind]), as_asked(rng, told if asked is None else asked))
    return question, fill(rng.choice(measure.says[kind]), told), told[_ASKED_FOR.get(kind, "key")]


def _ask_for_values(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], numbers: Sequence[float],
    values: Sequence[str], by: str = "",
) -> None:  # fmt: skip
    """Asks for values of names, for the highest, the lowest, a name by its value, and two names compared.

    ``by``: the column of the numbers, in a table with several.
    """
    places = range(len(names))
    turns = [_turn(rng, measure, "", key=names[i], value=values[i]) for i in rng.sample(places, min(3, len(names)))]
    for kind, find in ((">", max), ("<", min)):
        best = find(places, key=lambda i: numbers[i])
        if list(numbers).count(numbers[best]) == 1:
            turns.append(_turn(rng, measure, kind, key=names[best], value=values[best]))
    i = rng.choice(places)
    if list(values).count(values[i]) == 1:
        turns.append(_turn(rng, measure, "=", key=names[i], value=values[i]))
    for kind in "+-":
        a, b = rng.sample(places, 2)
        if numbers[a] != numbers[b]:
            more = (numbers[a] > numbers[b]) == (kind == "+")
            best, other = (a, b) if more else (b, a)
            asked = {"key": names[a], "other": names[b]}
            told = {"key": names[best], "other": names[other], "value": values[best], "other_value": values[other]}
            if turn := _turn(rng, measure, kind, asked, **told):
                record.ask(*turn)
    for turn in filter(None, turns):
        record.ask(*turn)
    _ask_for_claim(rng, record, measure, names, values)
    _ask_for_ranks(rng, record, measure, names, numbers, by)
    if rng.random() < 0.15 and ">" in measure.asks:
        best = max(places, key=lambda i: numbers[i])
        if list(numbers).count(numbers[best]) == 1:
            ask_for_option(rng, record, rng.choice(measure.asks[">"]), names[best], names)


def _ask_for_claim(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], values: Sequence[str]
) -> None:
    """Asks whether a name has a value, its own or that of another name."""
    if "y" not in measure.asks:
        return
    i = rng.randrange(len(names))
    others = sorted(set(values) - {values[i]})
    claim = rng.choice(others) if others and rng.random() < 0.5 else values[i]
    question = fill(rng.choice(measure.asks["y"]), as_asked(rng, {"key": names[i], "claim": claim}))
    says = measure.says["y" if claim == values[i] else "n"]
    record.ask(
        question,
        fill(rng.choice(says), {"key": names[i], "value": values[i], "claim": claim}),
        "Yes" if claim == values[i] else "No",
    )


def _ask_for_ranks(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], numbers: Sequence[float], by: str
) -> None:
    """Asks for the second and the third, where the description tells the order and no two are equal."""
    is_told = "in order: 1." in record.description and {">", "<"} & set(measure.asks) and not measure.is_clock
    if not is_told or len(set(numbers)) < len(numbers) or rng.random() < 0.5:
        return
    is_low_best = measure.is_low_best
    ranked = [name for _, name in sorted(zip(numbers, names, strict=True), reverse=not is_low_best)]
    place = rng.randrange(1, min(3, len(ranked)))
    word = ("second", "third")[place - 1]
    if is_low_best:
        ways = ["Which one comes {}?", "Which is in {} place?", "What has the {} lowest value?", "What is number {}?",
                "Who comes {}?", "Who is in {} place?"]  # fmt: skip
    else:
        ways = ["Which is the {} largest?", "Which one comes {}?", "Which is in {} place?", "What is number {}?",
                "What has the {} highest value?", "Which is the {} highest?"]  # fmt: skip
    if by:
        ways = [f'Which is in {{}} place by "{by}"?', f'Sorted by "{by}", which one comes {{}}?',
                f'Which has the {{}} {"lowest" if is_low_best else "highest"} number under "{by}"?']  # fmt: skip
    question = rng.choice(ways)
    asked = word if "What is number" not in question else ("two", "three")[place - 1]
    name = ranked[place]
    record.ask(question.replace("{}", asked), pick(rng, f"{name} comes {word}.", f"{name} is the {word}."))
    listed = ", ".join(ranked)
    order = "smallest to the largest" if is_low_best else "largest to the smallest"
    after = f' by "{by}"' if by else ""
    question = pick(rng, f"Sort them{after} from the {order}.", f"List them in order{after}.",
                    f"What is the ranking{after}?")  # fmt: skip
    record.ask(question, f"From the {order}: {listed}.")


def _ask_for_series(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], series: Sequence[str],
    rows: Sequence[Sequence[float]], values: Sequence[Sequence[str]],
) -> None:  # fmt: skip
    for _ in range(4):
        i, j = rng.randrange(len(names)), rng.randrange(len(series))
        turn = _turn(rng, measure, "s", key=names[i], series=series[j], value=values[j][i])
        if turn:
            record.ask(*turn)
    for kind, find in (("s>", max), ("s<", min)):
        i = rng.randrange(len(names))
        of_name = [row[i] for row in rows]
        best = of_name.index(find(of_name))
        if of_name.count(of_name[best]) == 1:
            turn = _turn(rng, measure, kind, key=names[i], series=series[best], value=values[best][i])
            if turn:
                record.ask(*turn)


def _ask_for_count(rng: random.Random, record: Record, topic: Topic, count: int) -> None:
    if topic.asks:
        record.ask(rng.choice(topic.asks), rng.choice(topic.says).replace("{count}", str(count)))


def _ask_for_others(rng: random.Random, record: Record, topic: Topic, measure: Measure, names: Sequence[str]) -> None:
    """Asks for a name that is not shown, which is refused by that name."""
    absent = topic.draw_names(rng, 1)[0]
    if absent.lower() in record.description.lower() or rng.random() < 0.4:
        return
    turn = _turn(rng, measure, "", key=absent, value="")
    if turn:
        record.ask(turn[0], pick(rng, f"I see no {absent} in the image.", f"The image shows no {absent}.",
                                 f"The image does not show {absent}."))  # fmt: skip


def _make_table(rng: random.Random, topic: Topic) -> Record:
    measures = rng.sample(topic.measures, rng.randint(min(2, len(topic.measures)), min(4, len(topic.measures))))
    names = topic.draw_names(rng, rng.randint(3, 6))
    has_unit = rng.random() < 0.4
    numbers = [measure.draw(rng, len(names)) if not measure.values else [] for measure in measures]
    clock = next((i for i, measure in enumerate(measures) if measure.is_clock and not topic.is_timed), None)
    if clock is not None:
        numbers[clock].sort()
    columns = []
    for measure, of_names in zip(measures, numbers, strict=True):
        unit = f" {measure.unit}" if measure.unit and has_unit else ""
        written = [measure.write(number) + unit for number in of_names]
        columns.append(written or measure.draw_words(rng, len(names)))
    heads = [rng.choice(topic.heads or [topic.key.capitalize()]), *(rng.choice(measure.heads) for measure in measures)]
    cells = [[name, *(column[i] for column in columns)] for i, name in enumerate(names)]
    title = [[rng.choice(topic.titles)]] if topic.titles and rng.random() < 0.6 else []
    shown = [*title, heads, *cells]
    record = Record(
        "text", describe((500, 400), [line for y, row in enumerate(shown) for line in place_row(y, *row)], [])
    )
    told = {extremes.what for extremes in find_extremes(shown)}
    several = sum(map(bool, numbers)) > 1
    for at, (measure, of_names, column, head) in enumerate(zip(measures, numbers, columns, heads[1:], strict=True)):
        others = {other.name: values for other, values in zip(measures, columns, strict=True)}
        _ask_by_others(rng, record, measure, names, column, others)
        if not of_names:
            for i in rng.sample(range(len(names)), 2):
                turn = _turn(rng, measure, "", key=names[i], value=column[i])
                if turn:
                    record.ask(*turn)
            i = rng.randrange(len(names))
            if column.count(column[i]) == 1 and (turn := _turn(rng, measure, "=", key=names[i], value=column[i])):
                record.ask(*turn)
            _ask_for_claim(rng, record, measure, names, column)
            continue
        asked = measure
        if head not in told and at != clock:  # what is highest in a column the model copies, and does not find
            kept = {kind: ways for kind, ways in measure.asks.items() if kind not in (">", "<")}
            asked = replace(measure, asks=kept)
        _ask_for_values(rng, record, asked, names, of_names, column, head if several else "")
    _ask_for_count(rng, record, topic, len(names))
    _ask_for_others(rng, record, topic, rng.choice(measures), names)
    ask_unknown(rng, record, rate=0.1)
    return record.shorten(rng)


def _ask_by_others(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], values: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> None:  # fmt: skip
    """Asks for values of names that are told by their values in other columns."""
    for kind in measure.asks:
        known = others.get(kind[1:], ()) if kind.startswith("@") else ()
        alone = [i for i, one in enumerate(known) if known.count(one) == 1]
        for i in rng.sample(alone, min(2, len(alone))):
            told = {"key": names[i], "value": values[i], "by": known[i]}
            if turn := _turn(rng, measure, kind, {"by": known[i]}, **told):
                record.ask(*turn)
