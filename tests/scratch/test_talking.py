"""What the adapter is trained on agrees with what was seen; its training computes what the model computes."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.conversation import find_template
from llava.model.lexical.colour_names import COLOURS
from llava.model.lexical.description import PLACES as CELLS
from llava.model.lexical.lexical_projector import LexicalProjector
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.object_finder import ObjectFinder
from llava.model.lexical.photo_line import Guess, write_photo
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.scratch.talking.adapter_batches import collate, pad
from llava.scratch.talking.adapter_samples import NUM_THINGS, THING, Encoded, SampleSource, encode, join, write_prefix
from llava.scratch.talking.adapter_training import CHECKPOINT, AdapterTraining, Schedule, loss_of
from llava.scratch.talking.document_records import MAKERS
from llava.scratch.talking.general_talk import QUESTIONS
from llava.scratch.talking.long_questions import lengthen
from llava.scratch.talking.other_languages import ANSWER, HELD_OUT, ask_in_other_language
from llava.scratch.talking.pack import FOLDER, pack_checkpoint, pack_tower, write_files
from llava.scratch.talking.photo_turns import draw_photo, talk_about_photo
from llava.scratch.talking.seen_records import Record, ask_for_missing, is_shown
from llava.scratch.talking.small_llama import Adapter, Sizes, SmallLlama, name_adapter, read_adapter
from llava.scratch.talking.small_talk import SMALL_TALK, make_small_talk
from llava.scratch.talking.thing_samples import ThingSamples
from llava.scratch.talking.thing_turns import make_plural, talk_about_view
from llava.scratch.talking.topic_grammar import load_topics
from tests import tiny_tokenizers
from tests.scratch.tiny_talking import write_things

SIZES = Sizes(layers=2, hidden=48, heads=4, kv_heads=2, inner=64)
PLACES = "top left|top right|bottom left|bottom right|top|left|center|right|bottom"


def draw(kind: str, count: int = 50) -> list[Record]:
    return [MAKERS[kind][1](random.Random(f"{kind} {i}")) for i in range(count)]


def turns_of(kind: str, pattern: str, count: int = 150) -> Iterator[tuple[str, re.Match[str], str]]:
    """Descriptions, matches of ``pattern`` with "question|answer", and answers; there have to be some."""
    found = 0
    for record in draw(kind, count):
        for question, answer in record.turns:
            if match := re.search(pattern, f"{question}|{answer}"):
                found += 1
                yield record.description, match, answer
    assert found > 3, pattern


def rows_of(description: str) -> list[str]:
    return re.findall(r"^\d+(?: \(last\))?\. (.*)$", description, re.MULTILINE)


def cells_of(row: str) -> set[str]:
    """The cells of a row without their columns' names."""
    return {re.sub(r"^[\w -]+: ", "", cell) for cell in row.split(" | ")}


def shapes_of(description: str) -> list[tuple[str, str]]:
    """Names with places, from left to right."""
    return re.findall(rf"(\w+ \w+) \(({PLACES})\)", description)


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_every_value_of_an_answer_is_in_the_description(kind: str) -> None:
    counted = r"There (is|are) \d+|with \d+ (items|lines?)|\bLine \d|(has|with) \d+ (bar|part|point|line)s"
    counted += "|I see no .+|The image (shows no|does not) .+"  # tested below
    for told in (told for topic in load_topics() for told in topic.says):
        counted += f"|^{re.escape(told).replace(re.escape('{count}'), '[0-9]+')}$"
    for record in draw(kind):
        known = record.description.lower()
        assert 1 <= len(record.turns) <= 12
        assert len({question for question, _ in record.turns}) == len(record.turns)
        for question, answer in record.turns:
            assert question
            for value in re.findall(r"[^\s\"]*\d[^\s\"]*", re.sub(counted, "", answer)):
                assert value.rstrip(".,:").lower() in known, (question, answer)
            for quoted in re.findall(r'"(.+?)"', answer):
                joined = " ".join(re.sub(r" \([\w ]+\)$", "", row) for row in rows_of(record.description))
                assert quoted in joined or quoted.lower() in known, (question, answer)


@pytest.mark.parametrize("kind", MAKERS)
def test_what_an_answer_does_not_see_is_not_in_the_description(kind: str) -> None:
    looks = {"price": r"\d\.\d\d( |$)", "phone": r"555-|\+44|\(\d{3}\) ", "e-mail": "@", "time": r"\d:\d\d|\d [ap]m"}
    for record in draw(kind, 100):
        for _, answer in record.turns:
            if match := re.search(r"I see no (.+?)(?: in the image)?\.$|The image shows no (.+)\.$", answer):
                what = (match[1] or match[2]).lower()
                text = "\n".join(rows_of(record.description))
                assert what not in text.lower().replace("\n", " "), answer
                if kind not in ("form", "page"):
                    assert not any(word in what and re.search(look, text, re.M) for word, look in looks.items())


@pytest.mark.parametrize("kind", MAKERS)
def test_records_follow_from_the_seed_alone(kind: str) -> None:
    assert draw(kind, 3) == draw(kind, 3)


def test_objects_are_counted_as_they_are_described() -> None:
    for description, match, _ in turns_of("shapes", r"(?:How many|Count the) .+\|There (?:is|are) (\w+) (.+)\."):
        *colour, noun = match[2].split()
        singular = "cross" if noun.startswith("cross") else noun.removesuffix("s")
        wanted = {*colour, singular} - {"object", "shape"}
        count = sum(wanted <= set(name.split()) for name, _ in shapes_of(description))
        assert match[1] == str(count or "no"), (description, match.string)

        shapes = [name.split()[1] for name, _ in shapes_of(description)]
        if len(shapes) > 1 and singular in shapes:
            assert re.search(rf" {singular}e?s {shapes.count(singular)}[,.]", description.split("Shapes:")[1])


def test_places_and_existence_of_objects_are_those_of_the_description() -> None:
    for description, match, _ in turns_of("shapes", rf"Where .*\|The (\w+) (\w+)? ?is (?:in|on|at) the ({PLACES})\."):
        wanted = {match[1], match[2]} - {None, "object"}
        held = [place for name, place in shapes_of(description) if wanted <= set(name.split())]
        assert held == [match[3]], (description, match.string)
    for description, match, _ in turns_of("shapes", r"\|(Yes|No), there is (?:an?|no) (\w+ ?\w*)\."):
        names = [name.split() for name, _ in shapes_of(description)]
        held = any(set(match[2].split()) - {"object"} <= set(name) for name in names)
        assert held == (match[1] == "Yes"), match.string


def test_relations_of_objects_follow_the_orders_of_the_description() -> None:
    asked = (
        r"Is the (\w+ \w+) (?:to the )?(left of|right of|above|below) the (\w+ \w+)\?\|(Yes|No), the \1 is (.+) the \3"
    )
    related = 0
    for description, match, _ in turns_of("shapes", asked):
        if description.startswith("2 objects"):
            assert f" The {match[1]} is {match[5]} the {match[3]}." in description
            related += 1
        across = [name for name, _ in shapes_of(description)]
        down = description.split("From top to bottom: ")[1].split(". ")[0].split(", ")
        order = across if "of" in match[5] else down
        assert (order.index(match[1]) < order.index(match[3])) == (match[5] in ("left of", "above"))
        assert (match[2] == match[5]) == (match[4] == "Yes")
    assert related > 3
    for description, match, _ in turns_of("shapes", r"\|The (leftmost|rightmost) object is the (\w+ \w+)\."):
        assert shapes_of(description)[0 if match[1] == "leftmost" else -1][0] == match[2]


def test_how_two_objects_lie_is_told_as_the_description_orders_them() -> None:
    asked = (
        r"(?:Is|Where is|How does) the (\w+ \w+)\b.* the (\w+ \w+)\?\|The \1 is (left of|right of|above|below) the \2\."
    )
    for description, match, _ in turns_of("comparisons", asked):
        across = [name for name, _ in shapes_of(description)]
        down = description.split("From top to bottom: ")[1].split(". ")[0].split(", ")
        order = across if "of" in match[3] else down
        assert (order.index(match[1]) < order.index(match[2])) == (match[3] in ("left of", "above"))


def values_of(description: str) -> dict[tuple[str, str], float]:
    """The numbers of a described chart, or of a table's rows, by what they tell and by their names."""
    number = r"\$?(-?\d+(?:\.\d+)?)"
    if not description.startswith("Text"):
        bars = re.search(r"(?:from left to right|from top to bottom|from the top): (.+?)\. Largest", description)
        assert bars is not None, description
        return {("", name): float(value) for name, value in re.findall(rf"([^,]+?) {number} \(\w+\)(?:, )?", bars[1])}
    first, *rows = rows_of(description)
    heads, found = first.split(" | "), {}
    for row in rows:
        cells = row.split(" | ")
        name = cells[0].removeprefix(f"{heads[0]}: ")
        for head, cell in zip(heads[1:], cells[1:], strict=True):
            if match := re.match(number, cell.removeprefix(f"{head}: ")):
                found[head.split(" (")[0].lower(), name] = float(match[1])
    return found


MORE = r"more|better|larger|higher|greater|dearer|ahead|heavier|older|taller|warmer|hotter|farther|longer|faster"
LESS = r"less|fewer|cheaper|smaller|lower|behind|lighter|younger|shorter|colder|cooler|nearer|closer|slower|quicker"


def test_which_of_two_numbers_is_more_is_told_as_the_description_has_them() -> None:
    yes_or_no = which = 0
    for description, match, _ in turns_of("numbers", r"^(.+)\|(Yes|No), (.+) is (\S+) and (.+) is (\S+?)( km/h)?\.$"):
        told = values_of(description)
        a, b = match[3], match[5]
        first, second = (float(match[i].lstrip("$")) for i in (4, 6))
        assert any(told.get((column, a)) == first and told.get((column, b)) == second for column, _ in told)
        is_more = re.search(rf"\b({LESS})\b", match[1]) is None
        assert is_more == (re.search(rf"\b({MORE})\b", match[1].split("less")[0].split("fewer")[0]) is not None), match[
            1
        ]
        assert match[1].lower().index(a.lower()) <= match[1].lower().rindex(b.lower())
        assert (first > second) == (is_more == (match[2] == "Yes")), match.string
        yes_or_no += 1
    for description, match, _ in turns_of(
        "numbers", r"\|(.+?) (?:is|has|costs|takes|got|sold) (?:the )?(\w+).*: (\S+)[\w /]* against (\S+?)( km/h)?\.$"
    ):
        first, second = (float(match[i].lstrip("$")) for i in (3, 4))
        assert (first > second) == (re.fullmatch(MORE, match[2]) is not None), match.string
        assert first in {value for (_, name), value in values_of(description).items() if name == match[1]}
        which += 1
    assert min(yes_or_no, which) > 20


def test_a_cell_is_that_of_its_name_and_column() -> None:
    found = lacking = 0
    for description, match, _ in turns_of("numbers", r"\|The (\w+) of (.+) is \$?(-?[\d.]+?)( km/h)?\.$"):
        assert values_of(description)[match[1], match[2]] == float(match[3]), (description, match.string)
        found += 1
    for description, match, _ in turns_of(
        "numbers", r"\|(?:I see no|The image shows no|The image does not show) (.+?)( in the image)?\."
    ):
        assert match[1].lower() not in description.lower()
        lacking += 1
    assert min(found, lacking) > 20


@pytest.mark.parametrize("kind", ["comparisons", "numbers", "shapes", "page", "topic"])
def test_an_answer_in_a_word_is_that_of_the_sentence(kind: str) -> None:
    compared = 0
    for number in range(60):
        whole, short = (MAKERS[kind][1](random.Random(number)) for _ in range(2))
        if kind in ("comparisons", "numbers"):  # ask for words of themselves
            whole.turns = [(question, answer) for question, answer in whole.turns if question in whole.shorts]
        short.ask_shortly(random.Random(number), 1.0)
        said = dict(whole.turns)
        for question, answer in short.turns:
            asked = next((each for each in said if question.startswith(each) and question != each), "")
            if asked in short.shorts and "\nA. " not in question:
                compared += 1
                assert answer.lower() in said[asked].lower(), asked
    assert compared > 20


def test_a_numbered_line_is_read_and_a_sign_is_told_by_its_ground() -> None:
    ordinals = "first second third fourth fifth sixth seventh eighth last".split()
    for description, match, _ in turns_of("lines", r"\|(?:The (\w+) line|Line (\d)) says \"?(.+?)\"?\.$"):
        rows = rows_of(description)
        if match[1] in (None, *ordinals):
            number = int(match[2]) - 1 if match[2] else ordinals.index(match[1])
            assert rows[-1 if match[1] == "last" else number].startswith(match[3])
        else:
            assert any(row == f"{match[3]} ({match[1]})" for row in rows)
    for description, match, _ in turns_of("signs", r"\|The (\w+) (?:sign|button|label) says \"?(.+?)\"?\.$"):
        [row] = [row for row in rows_of(description) if row == match[2] or row.startswith(f"{match[2]} (")]
        assert row.endswith(f"on {match[1]})") if match[1] != "white" else " on " not in row


def test_prices_are_their_items_and_the_dearest_costs_the_most() -> None:
    amount = r"[$€£]? ?\d+[.,]\d\d ?[$€£]?"

    def read(price: str) -> float:
        return float(re.sub(r"[^\d.]", "", price.replace(",", ".")))

    def prices(description: str) -> dict[str, tuple[float, str]]:
        """What rows tell with a price beside it, before it, or below it, where it is told with its name again."""
        texts = [
            row.removesuffix(f" ({row.split(' (')[-1]}") if row.endswith(")") else row for row in rows_of(description)
        ]
        first = [re.fullmatch(rf"({amount}) \| (?:\d x )?(.+)", text) for text in texts]
        rows = [re.fullmatch(rf"(?:\d x )?(.+?)(?: \||:)? ({amount})", text) for text in texts]
        told = [(row[2], row[1]) for row in first if row] or [(row[1], row[2]) for row in rows if row]
        sums = (
            r"tax|vat|(grand )?total( usd)?|amount due|balance due|to pay|sum( eur)?|cash|card|visa|given|paid|change"
        )
        items = [(name, price) for name, price in told if not re.fullmatch(sums, name.lower())]
        return {name.lower(): (read(price), price.strip()) for name, price in items}

    for description, match, _ in turns_of("receipt", rf"\|The ([\w ]+) (?:costs|is) ({amount})\.$"):
        said = prices(description).get(match[1].lower())
        assert match[1] in ("total", "total amount", "change") if said is None else said[1] == match[2]
    for description, match, _ in turns_of("receipt", rf"\|The (.+) costs the (most|least), ({amount})\.$"):
        most = {"most": max, "least": min}[match[2]](prices(description).items(), key=lambda item: item[1][0])
        assert (match[1].lower(), match[3]) == (most[0], most[1][1])
    for description, match, _ in turns_of("receipt", rf"\|The total (?:amount )?is ({amount})\.$"):
        assert sum(price for price, _ in prices(description).values()) == pytest.approx(read(match[1]))
    for description, match, _ in turns_of("receipt", r"How many items.*\|There are (\d+) items"):
        assert len(prices(description)) == int(match[1])


def test_the_largest_bar_has_the_largest_value() -> None:
    def bars(description: str) -> dict[str, float]:
        line = description.split("\n")[0].split(": ", 1)[1].split(" Largest: ")[0]
        return {label: float(value) for label, value in re.findall(r"([\w ]+) ([\d.]+)%? \(", line.replace("), ", ")"))}

    for description, match, _ in turns_of("chart", r"\|The (largest|smallest) (?:bar|part) is ([\w ]+)\."):
        most = {"largest": max, "smallest": min}[match[1]]
        assert match[2] == most(bars(description).items(), key=lambda bar: bar[1])[0]
        assert re.search(rf"{match[1]}: {match[2]} [\d.]+%?[;.]", description, re.IGNORECASE)
    for description, match, _ in turns_of(
        "chart",
        r"Is ([\w ]+) (larger|higher|greater|smaller|lower) than ([\w ]+)\?\|(\w+),",  # of bars, and of series
    ):
        values = bars(description)
        a, b = match[1], match[3]
        if a not in values:  # two series in one group
            b, group = re.split(" in | at ", b)
            a, b = f"{group} {a}", f"{group} {b}"
        is_larger = values[a] > values[b]
        assert (is_larger == (match[2] in ("larger", "higher", "greater"))) == (match[4] == "Yes")
    for description, match, _ in turns_of("chart", r"\|There are (\d) (?:bar|part)s"):
        assert len(bars(description)) == int(match[1])


def test_lines_of_charts_are_told_as_they_run() -> None:
    def lines(description: str) -> dict[str, list[tuple[str, float]]]:
        found = re.findall(r"^(.+?) \([\w, ]+\)(?:, \d points from left to right)?: (.+?)\. Highest", description, re.M)
        return {
            name: [(at, float(value)) for at, value in re.findall(r"([\w:]+) ([\d.]+)", told)] for name, told in found
        }

    for description, match, _ in turns_of("line chart", r"\|It is (highest|lowest) at ([\w:]+), with"):
        (points,) = lines(description).values()
        most = {"highest": max, "lowest": min}[match[1]]
        assert match[2] == most(points, key=lambda point: point[1])[0]
    for description, match, _ in turns_of("line chart", r"\|(.+) (rises|falls) overall, from ([\d.]+) to ([\d.]+)\."):
        points = next(points for name, points in lines(description).items() if name == match[1] or match[1] == "It")
        assert [points[0][1], points[-1][1]] == [float(match[3]), float(match[4])]
        assert (points[0][1] < points[-1][1]) == (match[2] == "rises")
    for description, match, _ in turns_of("line chart", r"\|At ([\w:]+), (.+) is the highest: "):
        values = {name: dict(points)[match[1]] for name, points in lines(description).items()}
        assert match[2] == max(values, key=lambda name: values[name])
    for description, match, _ in turns_of("line chart", r"\|There are (\d) points"):
        assert {len(points) for points in lines(description).values()} == {int(match[1])}


def test_names_of_axes_are_those_of_the_description() -> None:
    for description, match, _ in turns_of("line chart", r"\|The (x|y) axis (?:is called|shows) (\w+)\."):
        assert f" {match[1].upper()} axis: {match[2]}." in description


def test_a_cell_of_a_table_is_in_the_row_that_is_named() -> None:
    for description, match, _ in turns_of("table", r"\|The [\w -]+ (?:of|for) (.+) is (.+)\.$"):
        assert any({match[1], match[2]} <= cells_of(row) for row in rows_of(description)), match.string
    for description, match, _ in turns_of("table", r"\|There (?:is|are) (\d) entr"):
        assert len(rows_of(description)) - int(match[1]) in (0, 1, 2)


def test_what_is_shown_without_its_name_is_not_asked_for_as_missing() -> None:
    shown = {
        "price": "$3.50",
        "phone number": "(212) 5551",
        "date": "on 03/04",
        "name": "Anna",
        "title": 'chart "Sales"',
    }
    assert all(is_shown(what, known) for what, known in shown.items())
    assert not any(is_shown(what, "1 object: red star (top).") for what in shown)
    known = "Text (1 line):\n1. Ben | $4.00 | 9:15"
    asked = {turn[0] for i in range(200) if (turn := ask_for_missing(random.Random(i), known))}
    assert asked
    assert not any(re.search(r"price|time|\bname|total|tax|hours", question) for question in asked)


def test_several_things_are_told_apart_by_their_places() -> None:
    boxes = [(0.0, 0.4, 0.2, 0.6), (0.4, 0.4, 0.6, 0.6), (0.8, 0.4, 1.0, 0.6)]
    things = [
        {"name": name, "kind": "animal", "cell": 3 + i, "box": boxes[i], "colours": ["brown"]}
        for i, name in enumerate(("dog", "cat", "dog"))
    ]
    said: set[str] = set()
    for i in range(100):
        turns = talk_about_view(random.Random(i), {"objects": things}, ["cup", "cat"], {})
        said |= {f"{question}|{answer}" for question, answer in turns}
    assert any("The cat is in the center" in turn for turn in said)
    assert any(turn.endswith("There are 3 things: a dog and a cat.") for turn in said)
    assert not any(re.search(r"Where is the dog|the dog (left|right)|What is on the", turn) for turn in said)
    assert [make_plural(name) for name in ("fox", "lady bug", "cup of tea")] == ["foxes", "lady bugs", "cups of tea"]


# --- model and loss --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=SIZES.hidden,
        intermediate_size=SIZES.inner,
        num_hidden_layers=SIZES.layers,
        num_attention_heads=SIZES.heads,
        num_key_value_heads=SIZES.kv_heads,
        rms_norm_eps=SIZES.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": SIZES.rope_base},
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture
def small(reference: LlamaForCausalLM) -> SmallLlama:
    return SmallLlama(reference.model.state_dict(), SIZES)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizers.byte_level(["<|im_start|>", "<|im_end|>"]).backend_tokenizer


def make_adapter(small: SmallLlama) -> Adapter:
    torch.manual_seed(1)
    adapter = Adapter(small.weights, SIZES, rank=3, alpha=6)
    for value in adapter.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return adapter


def run(model: LlamaForCausalLM, prefix: list[int], embeds: torch.Tensor) -> torch.Tensor:
    """Transformers' logits after the prefix."""
    before = model.model.embed_tokens(torch.tensor(prefix, dtype=torch.long))[None].expand(len(embeds), -1, -1)
    return model(inputs_embeds=torch.cat([before, embeds], 1)).logits[:, len(prefix) :]


@pytest.mark.parametrize("prefix", [[], [5, 9, 2, 44]])
def test_the_small_llama_gives_the_logits_of_transformers(
    reference: LlamaForCausalLM, small: SmallLlama, prefix: list[int]
) -> None:
    if prefix:
        small.set_prefix(torch.tensor(prefix))
    embeds = torch.randn(2, 7, SIZES.hidden)
    ours = small.logits(small.hidden(embeds, None))
    torch.testing.assert_close(ours, run(reference, prefix, embeds), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of PyTorch about itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="a compiler of C++ is needed")
def test_compiled_layers_give_the_same_states_and_gradients(small: SmallLlama) -> None:
    small.set_prefix(torch.tensor([5, 9, 2, 44]))
    embeds, branch = torch.randn(2, 7, SIZES.hidden), torch.tensor([[0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1, 1]])
    found = []
    for is_compiled in (False, True):
        adapter = make_adapter(small)
        if is_compiled:
            small.compile()
        states = small.hidden(embeds, adapter, branch)
        states.square().sum().backward()
        found.append([states.detach(), *(value.grad for value in adapter.parameters())])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_a_change_of_weights_after_the_prefix_alone(
    reference: LlamaForCausalLM, small: SmallLlama
) -> None:
    adapter, embeds, prefix = make_adapter(small), torch.randn(2, 7, SIZES.hidden), [5, 9, 2, 44]
    merged = LlamaForCausalLM(reference.config).eval().requires_grad_(False)
    merged.load_state_dict(reference.state_dict())
    named = name_adapter(adapter.state_dict())
    weights = dict(merged.named_parameters())
    for name, A in named.items():
        if "lora_A" in name:
            weights[name.replace("image_lora_A.", "")] += 6 / 3 * named[name.replace("lora_A", "lora_B")] @ A
    ours = small.logits(small.hidden(embeds, adapter)).detach()
    torch.testing.assert_close(ours, run(merged, [], embeds), atol=1e-4, rtol=1e-4)

    before = reference(input_ids=torch.tensor([prefix] * 2), use_cache=True).past_key_values
    small.set_prefix(torch.tensor(prefix))
    ours = small.logits(small.hidden(embeds, adapter)).detach()
    after = merged(inputs_embeds=embeds, past_key_values=before).logits
    torch.testing.assert_close(ours, after, atol=1e-4, rtol=1e-4)
    assert (ours - run(merged, prefix, embeds)).abs().max() > 1e-3


def test_a_training_starts_from_a_checkpoint_or_from_what_was_packed(small: SmallLlama, tmp_path: Path) -> None:
    state = make_adapter(small).state_dict()
    torch.save({"adapter": state}, tmp_path / "checkpoint.pt")
    packed = pack_checkpoint({"adapter": state, "projector": {}})["adapter"]
    save_file(packed, tmp_path / "adapter.safetensors")
    for file, atol in (("checkpoint.pt", 0.0), ("adapter.safetensors", 2**-8)):
        read = read_adapter(tmp_path / file)
        assert read.keys() == state.keys()
        for name, value in read.items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, state[name], rtol=atol, atol=0.0)


def test_targets_are_the_tokens_of_the_answers_and_their_ends(tokenizer: Any) -> None:
    turns = [("What is it?", "It is a cup."), ("Which color?", "It is red.")]
    sample = encode("Text (1 line):\n1. OPEN", turns, tokenizer, torch.zeros(10, 2283))
    learnt = [token for token, is_target in zip(sample.ids, sample.is_target, strict=True) if is_target]
    assert tokenizer.decode(learnt, skip_special_tokens=False) == "It is a cup.<|im_end|>It is red.<|im_end|>"
    other = encode("", turns[:1], tokenizer, torch.zeros(10, 2283))
    ids, is_target, _ = pad([other, sample])
    assert int(is_target.sum()) == sum(sample.is_target) + sum(other.is_target)
    assert ids.shape == (2, len(sample.ids))

    conversation = find_template("smollm2")
    for i, (question, answer) in enumerate(turns):
        conversation.append_message(conversation.roles[0], ("<image>\n" if i == 0 else "") + question)
        conversation.append_message(conversation.roles[1], answer)
    whole = write_prefix() + show(encode("", turns, tokenizer, sample.looks), tokenizer)
    assert conversation.get_prompt().rstrip("\n") == whole


@pytest.mark.parametrize("asked", [[("What is it?", "It is a cup.")], []])
def test_a_second_image_comes_where_the_chat_has_it(asked: list[tuple[str, str]], tokenizer: Any) -> None:
    looks, later = torch.zeros(10, 2283), [("And this?", "It is a dog.")]
    first, second = encode("", asked, tokenizer, looks), encode("", later, tokenizer, looks + 1)
    both = join(first, second, tokenizer)
    assert both.looks[:, 0].tolist() == [0.0] * 10 + [1.0] * 10
    assert sum(both.is_target) == sum(first.is_target) + sum(second.is_target)
    assert len(both.branch) == len(both.ids)

    conversation = find_template("smollm2")
    turns = [(f"<image>\n{question}", answer) for question, answer in [*asked, *later]]
    turns = turns if asked else [(f"<image>\n{turns[0][0]}", turns[0][1])]  # both in one question
    for question, answer in turns:
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], answer)
    assert conversation.get_prompt().rstrip("\n") == write_prefix() + show(both, tokenizer)


def show(sample: Encoded, tokenizer: Any) -> str:
    """The text of a sample, with "<image>" where an image's things are."""
    runs = itertools.groupby(sample.ids, lambda token: token == THING)
    parts = [(is_thing, list(ids)) for is_thing, ids in runs]
    assert all(len(ids) == NUM_THINGS for is_thing, ids in parts if is_thing)
    return "".join("<image>" if is_thing else tokenizer.decode(ids, False) for is_thing, ids in parts)


def test_the_loss_is_that_of_the_answers_after_the_image(
    reference: LlamaForCausalLM, small: SmallLlama, tokenizer: Any
) -> None:
    torch.manual_seed(2)
    projector = LexicalProjector(SimpleNamespace(hidden_size=SIZES.hidden)).eval()
    prefix = tokenizer.encode(write_prefix()).ids
    small.set_prefix(torch.tensor(prefix))
    adapter = Adapter(small.weights, SIZES, rank=2, alpha=2)  # B is zero: no change
    batch = [encode("", [("Q?", "An answer.")], tokenizer, torch.randn(10, 2283))]
    batch += [encode("Text", [("Why?", "So."), ("And?", "No more than this.")], tokenizer, torch.randn(10, 2283))]
    batch += [join(batch[1], encode("Sign", [("What?", "This.")], tokenizer, torch.randn(10, 2283)), tokenizer)]
    loss, count = loss_of(small, adapter, projector, collate(batch))
    losses = []
    for sample in batch:
        slots, embed = torch.arange(15), reference.model.embed_tokens
        embeds = embed(torch.tensor(sample.ids).clamp(min=0))
        at = [i for i, token in enumerate(sample.ids) if token == THING]
        for number, looks in enumerate(sample.looks.split(10)):
            rows = torch.cat([looks[:1].expand(6, -1), looks[1:]])
            embeds[at[15 * number : 15 * (number + 1)]] = projector.say(rows, slots, embed)
        chances = run(reference, prefix, embeds[None])[0].log_softmax(1)
        losses += [-chances[i - 1, sample.ids[i]] for i in range(len(sample.ids)) if sample.is_target[i]]
    assert count == len(losses)
    assert float(loss.detach()) == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-4)
    flags = [
        (was, now, id)
        for sample in batch
        for (was, now), id in zip(itertools.pairwise(sample.is_target), sample.ids[1:], strict=True)
        if now
    ]
    deciding = next(id for was, _, id in flags if not was)
    weights = torch.tensor([4.0 if not was and id == deciding else 1.0 for was, _, id in flags])
    weighted, _ = loss_of(small, adapter, projector, collate(batch), torch.tensor([deciding]))
    assert sum(not was for was, _, _ in flags) == 6  # answers: one, two, and three of a chat about two images
    assert 0 < sum(weight > 1 for weight in weights) < 6
    assert float(weighted.detach()) == pytest.approx(float((weights * torch.stack(losses)).mean().detach()), rel=1e-4)


def test_a_branch_gives_the_logits_of_its_turn_alone(small: SmallLlama, tokenizer: Any) -> None:
    looks, turns = torch.zeros(10, 2283), [("Q?", "An answer."), ("Why is it so?", "So."), ("And?", "No.")]
    whole = encode("Text (1 line)", turns, tokenizer, looks, branches=True)
    longer = encode("Text (1 line): OPEN", [*turns, turns[0]], tokenizer, looks)
    ids, is_target, branch = pad([whole, longer])
    adapter = make_adapter(small)
    small.set_prefix(torch.tensor([5, 9, 2, 44]))
    hidden = small.hidden(small.embeddings[ids.clamp(min=0)], adapter, branch)[0][is_target[0]]
    alone = []
    for turn in turns:
        sample = encode("Text (1 line)", [turn], tokenizer, looks)
        one = small.hidden(small.embeddings[torch.tensor([sample.ids]).clamp(min=0)], adapter)[0]
        alone.append(one[torch.tensor(sample.is_target)])
    torch.testing.assert_close(hidden, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_turns_that_do_not_fit_are_left_out(tokenizer: Any) -> None:
    turns = [("Q?", "An answer."), ("Why?", "So."), ("And?", "No more than this.")]
    looks = torch.zeros(10, 2283)
    lengths = [len(encode("Text", turns[:count], tokenizer, looks).ids) for count in range(4)]
    assert lengths == sorted(set(lengths))
    for limit in range(lengths[0], lengths[3] + 1):
        kept = encode("Text", turns, tokenizer, looks, max_tokens=limit)
        assert len(kept.ids) == max(length for length in lengths if length <= limit)


# --- training and packing --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> ThingSamples:
    folder = tmp_path_factory.mktemp("things")
    return ThingSamples(folder, write_things(folder))


def test_questions_in_other_languages_leave_some_for_tests() -> None:
    rng = random.Random(0)
    asked = {ask_in_other_language(rng)[0] for _ in range(3000)}
    assert len(asked) > 300
    assert not asked & set(HELD_OUT)


def test_a_long_question_ends_with_the_question() -> None:
    longer = [lengthen(random.Random(i), "What is this?") for i in range(50)]
    assert all(text.endswith("What is this?") and 8 < len(text.split()) < 150 for text in longer)


def test_an_image_of_things_is_asked_for_text_that_it_does_not_have(things: ThingSamples) -> None:
    turns = [turn for i in range(80) for turn in things.draw(random.Random(i))[1]]
    asked = [(question, answer) for question, answer in turns if "no text" in answer]
    assert len(asked) >= 20
    for question, answer in asked:
        assert answer.startswith("No, ") == (question.split()[0] in ("Is", "Do", "Can", "Are", "Does")), question


def make_training(small: SmallLlama, tokenizer: Any, things: ThingSamples, folder: Path) -> AdapterTraining:
    torch.manual_seed(3)
    projector = LexicalProjector(SimpleNamespace(hidden_size=SIZES.hidden))
    source = SampleSource(tokenizer, things, thing_share=0.5, max_tokens=700)
    schedule = Schedule(steps=2, batch_size=1, rate=1e-2, seed=4)
    return AdapterTraining(small, Adapter(small.weights, SIZES, 2, 2), projector, source.draw, schedule, folder)


def test_a_training_resumes_with_the_same_numbers(
    small: SmallLlama, tokenizer: Any, things: ThingSamples, tmp_path: Path
) -> None:
    small.set_prefix(torch.tensor(tokenizer.encode(write_prefix()).ids))
    make_training(small, tokenizer, things, tmp_path / "whole").run()
    make_training(small, tokenizer, things, tmp_path / "parts").run(until=1)
    first = torch.load(tmp_path / "parts" / CHECKPOINT, weights_only=True)
    resumed = make_training(small, tokenizer, things, tmp_path / "parts")
    assert (resumed.step, first["step"]) == (1, 1)
    resumed.run()
    whole, parts = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts"))
    for part in ("adapter", "projector"):
        assert all(torch.equal(value, parts[part][name]) for name, value in whole[part].items())
        assert not all(torch.equal(value, first[part][name]) for name, value in whole[part].items())
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    steps = [[(line["step"], line["loss"]) for line in map(json.loads, log)] for log in logs]
    assert [step for step, _ in steps[0]] == [0, 1]
    assert steps[0] == steps[1]


def test_samples_hold_things_and_what_was_read(tokenizer: Any, things: ThingSamples) -> None:
    source = SampleSource(tokenizer, things, thing_share=0.5, max_tokens=700).draw(random.Random(0))
    samples: list[Encoded] = [next(source) for _ in range(120)]
    assert all(sample.looks.shape[1:] == (2283,) and len(sample.ids) <= 700 for sample in samples)
    assert {len(sample.looks) for sample in samples} == {10, 20}
    assert all(sample.ids.count(THING) == 1.5 * len(sample.looks) for sample in samples)
    texts = [show(sample, tokenizer) for sample in samples]
    assert any(text.startswith("<image>\n") for text in texts)  # nothing was read: the question follows the things
    assert any(text.startswith("<image>Text (") for text in texts)
    assert any(ANSWER in text for text in texts)
    assert {bool(sum(sample.branch)) for sample in samples} == {True, False}  # chats and branches


def test_what_is_packed_is_what_the_assembled_model_reads(small: SmallLlama, tmp_path: Path) -> None:
    values = json.loads((FOLDER / "config.json").read_text())
    parts = json.loads((FOLDER / "parts.json").read_text())
    rank, alpha = values["mm_image_adapter"]["rank"], values["mm_image_adapter"]["alpha"]
    values |= {"hidden_size": SIZES.hidden, "intermediate_size": SIZES.inner, "num_hidden_layers": SIZES.layers}
    values |= {"num_attention_heads": SIZES.heads, "num_key_value_heads": SIZES.kv_heads, "vocab_size": 600}
    with torch.device("meta"):
        model = LlavaLlamaForCausalLM(LlavaConfig(**values, head_dim=SIZES.head_dim))
    wanted = {
        name: value.shape
        for name, value in model.state_dict().items()
        if "image_lora" in name or name.startswith(tuple(one["prefix"] for one in parts["own"] if one["prefix"]))
    }

    adapter, projector = Adapter(small.weights, SIZES, rank, alpha), LexicalProjector(SimpleNamespace(hidden_size=48))
    state = {"adapter": adapter.state_dict(), "projector": projector.state_dict()}
    towers = {name: pack_tower(net, net.state_dict()) for name, net in
              (("reader", LineReader()), ("objects", ObjectFinder()))}  # fmt: skip
    for one in parts["own"]:
        one |= {"num_bytes": 0, "sha256": ""}
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    write_files(towers | pack_checkpoint(state), tmp_path)

    pinned = json.loads((tmp_path / "parts.json").read_text())["own"]
    assert [one["file"] for one in pinned] == [one["file"] for one in parts["own"]]
    packed = {one["prefix"] + n: v for one in pinned for n, v in load_file(tmp_path / one["file"]).items()}
    assert {name: value.shape for name, value in packed.items()} == wanted
    assert all(one["num_bytes"] == (tmp_path / one["file"]).stat().st_size and one["sha256"] for one in pinned)
    name = "model.layers.1.mlp.down_proj.image_lora_A.weight"
    assert torch.equal(packed[name], adapter.A["1_mlp_down_proj"].detach().bfloat16())
    assert alpha == rank  # as adapter_training scales it


def test_what_is_said_of_a_photo_is_in_its_line() -> None:
    rng, checked = random.Random(5), 0
    guesses = (Guess(("dog",), "Siberian Husky", is_sure=True), Guess(("lake", "valley")), Guess())
    for guess in guesses * 60:
        photo = draw_photo(rng, guess)
        line = write_photo(photo)
        for question, answer in talk_about_photo(rng, photo, ["cup", "owl"], {})[1:]:
            if question.startswith(("Are", "Is", "What is it used", "Tell me more")):
                continue
            said = set(COLOURS) & set(re.findall(r"\w+", answer))
            assert said <= set(re.findall(r"\w+", line)), (question, answer)
            checked += bool(said)
            for place in PLACES.split("|"):
                if not re.search(rf"(in|on|at) the {place} of the image", answer):
                    continue
                if "side" in question:  # the half of a corner
                    assert place in CELLS[photo.cell].split(), (question, answer)
                else:
                    assert f"the {place}." in line, (question, answer)
    assert checked > 300


def test_yes_and_no_about_a_photo_follow_from_its_line() -> None:
    rng, words = random.Random(6), {"Yes": 0, "No": 0}
    for _ in range(150):
        photo = draw_photo(rng, Guess(("dog",), "", is_sure=True))
        for question, answer in talk_about_photo(rng, photo, ["cup", "owl"], {}):
            match = re.match(rf"Is (?:it|the dog) ({'|'.join(COLOURS)})\?", question)
            if match:
                words[answer.split(",")[0].rstrip(".")] += 1
                assert answer.startswith("Yes" if match[1] in photo.colours else "No"), (question, answer)
    assert min(words.values()) > 20


def test_small_talk_is_answered_by_what_it_is() -> None:
    rng, said = random.Random(3), {}
    for _ in range(400):
        question, answer = make_small_talk(rng)
        said.setdefault(question, set()).add(answer)
    assert set(said) <= SMALL_TALK
    assert said["What can you do?"] == {answer for answer in said["help"] if answer.startswith("You can ask me")}
    assert all(answer.startswith("Yes, ") for answer in said["Can you see the image?"])
    assert not SMALL_TALK & set(QUESTIONS)
