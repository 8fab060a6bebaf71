"""The report of evaluations is complete in itself, and nothing that a model or a file says is read as HTML."""

from __future__ import annotations

import base64
import io
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import UsageError
from llava.eval.report import score_page
from llava.eval.report.chosen_answers import choose_examples
from llava.eval.report.run_conditions import list_conditions
from llava.eval.report.score_page import ReportOptions, write_report
from llava.eval.report.score_plots import Series, choose_span, cut_middle, draw_bars, draw_radar
from llava.eval.report.shown_examples import ExampleMaker, find_tiling
from llava.eval.score_file import ScoredRun, write_scores
from tests.eval.scored_runs import make_answer, make_run

SCRIPT = "<script>alert('it')</script>"


class Parsed(HTMLParser):
    """The tags, ids, links, image sources and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            {"src": self.sources, "href": self.links, "id": self.ids}.get(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def write(folder: Path, run: ScoredRun, name: str = "a") -> Path:
    path = folder / f"{name}.scores.json"
    write_scores(path, run)
    return path


def make_report(folder: Path, *runs: ScoredRun, **options: Any) -> Parsed:
    paths = [write(folder, run, f"run{number}") for number, run in enumerate(runs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_report(paths, folder / "out", ReportOptions(**options))
    return Parsed(page.read_text(encoding="utf-8"))


def hostile(photo: Path) -> ScoredRun:
    """A run in which every text is an attack, and images that are there, gone, of another kind, and in a file."""
    answers = [
        make_answer(
            0,
            0.0,
            id=SCRIPT,
            reading=SCRIPT,
            references=(SCRIPT, " a "),
            categories=(SCRIPT,),
            note=SCRIPT,
            prompt=SCRIPT,
            text=SCRIPT + "\u202e\x1b\ud800",
            images=(str(photo), str(photo.parent / "gone.png"), None),
        ),
        make_answer(1, 1.0, categories=("$x_1$",), images=(str(Path(__file__)),)),
        make_answer(2, 0.5, reading=None, references=(), categories=("\u5b50",), text=""),
    ]
    return make_run(
        answers,
        model=SCRIPT,
        settings={SCRIPT: SCRIPT},
        readings={SCRIPT: 3.0},
        notes=(SCRIPT,),
        published={SCRIPT: "62.0" + SCRIPT},
        source=SCRIPT,
    )


def test_a_report_escapes_everything_from_outside_and_loads_nothing(tmp_path: Path, photo: Path) -> None:
    page = make_report(tmp_path, hostile(photo), model="embedded")
    assert "script" not in page.tags
    assert page.text.count(SCRIPT) > 10
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    for said in ("\\u202e\\x1b\\ud800", "nothing could be read from it", "gone.png", "name the folder with --data"):
        assert said in page.text
    raw = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert not any(sign in raw for sign in ("\u202e", "\x1b", "http:", "https:", "url("))
    for source in page.sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
            image.load()


def test_a_report_shows_score_noise_readings_settings_and_examples(tmp_path: Path, photo: Path) -> None:
    answers = [
        make_answer(place, float(place < 62), categories=("a", "b")[place % 2 :][:1], images=(str(photo),))
        for place in range(100)
    ]
    run = make_run(
        answers,
        task="textvqa",
        readings={"lmms-eval": 60.5},
        settings={"temperature": 0.2, "template": "llava_v1", "versions": {"torch": "2.1.2+cu121"}},
    )
    page = make_report(tmp_path, run, num_examples=3)
    for said in (
        "62.00 accuracy",
        "58.20 published for llava-v1.5-7b",
        "+3.80 within noise",
        "± 4.85",
        "The standard error is binomial, 100 answers.",
        "lmms-eval 60.50 -1.50",
        "questions 100 5,000",
        "temperature 0.2 0",
        "template llava_v1 vicuna_v1",
        "3 settings differ.",
        "LLaVA-1.5-13B has 48.7 in place of 61.3",
        "Worst answers",
        "Best answers",
        "token map: 100x67 -> padded to 336x336, 1 tile, 24 x 24 = 576 positions",
    ):
        assert said in page.text
    assert page.text.count("token map:") == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "textvqa-categories.png"]


def test_several_runs_share_a_radar_chart_and_a_figure_of_categories(tmp_path: Path) -> None:
    runs = [
        make_run([make_answer(0, 1, categories=("x",)), make_answer(1, 0, categories=("y",))], task=task, model=model)
        for task in ("gqa", "textvqa", "docvqa")
        for model in ("llava-v1.5-7b", "mine")
    ]
    page = make_report(tmp_path, *runs)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "radar.png", *(f"{task}-categories.png" for task in ("gqa", "textvqa", "docvqa"))}
    assert "6 scores" in page.text
    assert "2 of 2 equal to the published score or within noise" in page.text
    assert page.text.count("no published score") == 4
    with Image.open(tmp_path / "out/radar.png") as image:
        assert min(image.size) > 1000


def test_a_figure_has_at_most_sixty_categories(tmp_path: Path) -> None:
    page = make_report(tmp_path, make_run([make_answer(place, 1, categories=(f"c{place}",)) for place in range(500)]))
    assert "The first 100 of 500 categories are drawn." in page.text
    with Image.open(tmp_path / "out/gqa-categories.png") as image:
        assert image.height < 6000


def test_a_run_that_only_a_server_scores_is_shown_without_a_score(tmp_path: Path) -> None:
    page = make_report(tmp_path, make_run([], task="vizwiz", categories={}))
    assert "It is not scored here" in page.text
    assert "no published score" in page.text


def test_two_runs_of_one_model_and_unknown_rows_are_refused(tmp_path: Path) -> None:
    run = make_run([make_answer(0, 1)])
    with pytest.raises(UsageError, match=r"are both of 'llava-v1.5-7b' on gqa"):
        make_report(tmp_path, run, run)
    with pytest.raises(UsageError, match=r"no published score of 'llava-v9'; there are: llava-v1.5-7b"):
        make_report(tmp_path, run, against="llava-v9")
    assert make_report(tmp_path, run, against="llava-v1.5-13b").text.count("llava-v1.5-13b") > 0


def test_models_whose_names_differ_only_in_signs_have_figures_of_their_own(tmp_path: Path) -> None:
    page = make_report(tmp_path, *(make_run([make_answer(0, 1)], model=name) for name in ("a/b", "a:b")))
    assert len(set(page.ids)) == len(page.ids) == 2


def test_the_worst_answers_come_from_all_categories_and_begin_with_the_unread() -> None:
    answers = [
        make_answer(
            place,
            float(place % 10 == 0),
            reading=None if place in (3, 51) else "no",
            categories=(f"c{place % 4}", "all"),
        )
        for place in range(100)
    ]
    worst, best = choose_examples(make_run(answers), 6)
    assert [answer.id for answer in worst[:2]] == [3, 51]
    assert len(worst) == 6
    assert {name for answer in worst for name in answer.categories} == {"c0", "c1", "c2", "c3", "all"}
    assert len(best) == 6
    assert all(answer.score == 1 for answer in best)
    assert choose_examples(make_run(answers), 6) == (worst, best)
    assert [answer.id for answer in choose_examples(make_run(answers[:2]), 6)[0]] == [1]


def test_a_templates_other_name_is_no_difference() -> None:
    run = make_run([], settings={"template": "v1", "dtype": "torch.float16", "sampling": {"temperature": 0.0}})
    rows = {each.name: each.differs for each in list_conditions(run, "llava-v1.6-vicuna-7b")}
    assert rows == {"questions": True, "template": False, "dtype": False, "sampling.temperature": False}
    assert [each.published for each in list_conditions(run, "llava-v1.6-34b") if each.name == "template"] == [
        "chatml_direct"
    ]
    assert not any(each.published for each in list_conditions(run) if each.name == "template")


def test_the_tiling_is_the_released_one_the_embedded_one_or_unknown() -> None:
    assert find_tiling(make_run([], model="llava-hf/llava-1.5-7b-hf"), None)[0].aspect == "pad"  # type: ignore[union-attr]
    released, _ = find_tiling(make_run([], model="llava-v1.6-34b"), None)
    assert released is not None
    assert released.is_anyres
    assert find_tiling(make_run([], model="embedded"), None)[0] == find_tiling(make_run([]), "embedded")[0]
    assert find_tiling(make_run([], model="mine"), None) == (
        None,
        "Token maps are not drawn: how 'mine' cuts images is not known. Name it with --model.",
    )


def test_an_image_in_the_benchmarks_file_is_found_by_its_place_and_id(tmp_path: Path, photo: Path) -> None:
    encoded = base64.b64encode(photo.read_bytes()).decode()
    table = tmp_path / "mmbench/mmbench_dev_20230712.tsv"
    table.parent.mkdir()
    table.write_text(f"index\tquestion\tA\tB\timage\n7\tWhat?\tx\ty\t{encoded}\n", encoding="utf-8")
    run = make_run([], task="mmbench")
    maker = ExampleMaker(run, None, tmp_path)
    found = maker.make(make_answer(0, 1.0, id=7, images=(None,)))
    assert (len(found.images), found.missing) == (1, ())
    other = maker.make(make_answer(0, 1.0, id=8, images=(None,)))
    assert (other.images, other.missing) == ((), (f"Question 8 is not in '{tmp_path}' where the run had it.",))


@pytest.mark.parametrize("values", [[66.8, 66.9], [0.0], [0.0, 100.0], [1510.7, 1531.3], [35.8], [100.0, 100.0], [0.3]])
def test_an_axis_has_its_values_on_it_and_spans_a_fifth_of_the_greatest(values: list[float]) -> None:
    span = choose_span(values)
    assert all(0 <= span.place(value) <= 1 for value in values)
    assert span.high - span.low >= 0.2 * max(values)
    assert span.low >= 0


def test_figures_take_names_of_any_script_and_scores_that_are_missing(tmp_path: Path) -> None:
    series = [
        Series("$a$", {"\u6570": 3.0, "b": 1520.0}),
        Series("<&>", {"\u6570": 2.0, "c": 0.0}),
        Series("llava-v1.5-7b", {"b": 1510.0}, True, "$a$"),
    ]
    draw_radar(["\u6570", "b", "c"], series, tmp_path / "new/radar.png")
    draw_bars(["\u6570", "b", "c"], series, tmp_path / "bars.png", {"b": 1200})
    draw_bars(["b"], [Series("worse than nothing", {"b": -3.0})], tmp_path / "bars.png", {})
    for path in ("new/radar.png", "bars.png"):
        with Image.open(tmp_path / path) as image:
            image.load()


def test_a_name_is_cut_where_checkpoints_of_one_training_are_equal() -> None:
    names = [f"llava-v1.5-7b-of-a-training-with-a-long-name-checkpoint-{step}" for step in (100, 200)]
    cut = [cut_middle(name, 30) for name in names]
    assert len(set(cut)) == 2
    assert {len(name) for name in cut} == {30}
    assert cut_middle("a\nb", 30) == "a\\nb"


def test_a_benchmark_in_two_variants_has_an_axis_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(score_page, "draw_bars", lambda names, series, path, counts: drawn.append((names, series)))
    monkeypatch.setattr(score_page, "_embed", lambda *_: "")
    tasks = {"seed": 50.0, "seed_image": 60.0}
    paths = [
        write(tmp_path, make_run([make_answer(0, 1.0)], headline=score, task=task), task)
        for task, score in tasks.items()
    ]
    write_report(paths, tmp_path / "out", ReportOptions())
    names, series = drawn[0]
    assert names == ["SEED-Bench (seed)", "SEED-Bench (seed_image)"]
    assert list(series[0].values.values()) == [50.0, 60.0]


def test_thousands_of_categories_are_drawn_in_part_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(score_page, "draw_bars", lambda names, *_: drawn.append(names))
    monkeypatch.setattr(score_page, "_embed", lambda *_: "")
    path = write(tmp_path, make_run([make_answer(place, 1.0, categories=(f"c{place}",)) for place in range(3000)]))
    page = write_report([path], tmp_path / "out", ReportOptions(num_examples=0))
    assert len(drawn[0]) == 100
    assert "The first 100 of 3,000 categories are drawn." in page.read_text()


def test_the_commands_write_the_report_and_print_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    first = write(tmp_path, make_run([make_answer(place, 1.0, images=(str(photo),)) for place in range(8)]))
    second = write(tmp_path, make_run([make_answer(place, 0.0, text=SCRIPT) for place in range(8)], model="mine"), "b")
    out = tmp_path / "out"
    assert main(["eval", "report", str(first), str(second), "--out", str(out), "--examples", "1"]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    assert main(["eval", "compare", str(first), str(second), "--out", str(out), "--examples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "McNemar's exact test: p = 0.008" in printed
    assert "A is better (2 of 8):" in printed
    page = Parsed((out / "compare.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.text.count("B's answer " + SCRIPT) == 2
    assert len(page.sources) == 4  # two images and their token maps
    assert main(["eval", "compare", str(first), str(photo)]) == 2
    assert main(["eval", "report", str(first), "--out", str(photo)]) == 1
    assert main(["eval", "report", str(first), "--out", str(out), "--examples", "-1"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "--examples is -1" in errors
