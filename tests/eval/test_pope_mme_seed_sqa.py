"""Whole runs of POPE, MME, SEED-Bench and ScienceQA get the numbers that the originals print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llava.cli import main
from llava.errors import UsageError
from llava.eval import calculate_mme, convert_answer_to_mme, seed_submission
from llava.eval.askers import Outcome
from llava.eval.benchmark_table import TASKS
from llava.eval.question_files import read_seed_images
from llava.eval.task import Question, resolve
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.mme import score_mme
from llava.eval.tasks.pope import score_pope
from llava.eval.tasks.seed import score_seed
from llava.eval.tasks.sqa import score_science_qa

ROOT = Path(__file__).resolve().parents[2]
RUNS = json.loads((ROOT / "tests/gold/eval/choice_runs.json").read_text(encoding="utf-8"))
COMMANDS = json.loads((ROOT / "tests/gold/eval/choice_commands.json").read_text(encoding="utf-8"))["commands"]
WHOLE, PART = ScoringOptions(), ScoringOptions(is_partial=True)

Run = tuple[list[Question], list[str], Path]


def texts_of(name: str) -> dict[str, str]:
    return {path: RUNS["texts"][number] for path, number in RUNS["commands"][name]["files"].items()}


def parse(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def ask(row: dict[str, Any], *images: str) -> Question:
    return Question(row["question_id"], tuple(map(Path, images)), row["prompt"], row["prompt"])


def write(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
    return folder


def numbers(text: str, pattern: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


@pytest.fixture
def mme(tmp_path: Path) -> Run:
    files = texts_of("convert_answer_to_mme")
    rows = parse(files.pop("answers/m-7b.jsonl"))
    write(tmp_path / "MME", files)
    return [ask(row, row["question_id"]) for row in rows], [row["text"] for row in rows], tmp_path


@pytest.fixture
def seed(tmp_path: Path) -> Run:
    files = texts_of("convert_seed_for_submission")
    rows = parse(files["a.jsonl"])
    write(tmp_path / "seed_bench", {"SEED-Bench.json": files["SEED-Bench.json"]})
    return [ask(row, "a.png") for row in rows], [row["text"] for row in rows], tmp_path


@pytest.fixture
def pope(tmp_path: Path) -> Run:
    """The original's two categories, and a third one that is the first again."""
    files = dict(COMMANDS["eval_pope"]["files"])
    rows, questions = parse(files["a.jsonl"]), parse(files["q.jsonl"])
    twins = [row for row, question in zip(rows, questions, strict=True) if question["category"] == "random"]
    more = [question for question in questions if question["category"] == "random"]
    rows += [{**row, "question_id": row["question_id"] + 10**6} for row in twins]
    questions += [{**row, "question_id": row["question_id"] + 10**6, "category": "popular"} for row in more]
    labels = {f"coco/coco_pope_{name}.json": files[f"coco/coco_pope_{name}.json"] for name in ("random", "adversarial")}
    labels["coco/coco_pope_popular.json"] = labels["coco/coco_pope_random.json"]
    lines = "".join(json.dumps(row) + "\n" for row in questions)
    write(tmp_path / "pope", {**labels, "llava_pope_test.jsonl": lines})
    return [ask(row, "a.jpg") for row in rows], [row["text"] for row in rows], tmp_path


@pytest.fixture
def science(tmp_path: Path) -> Run:
    files = COMMANDS["eval_science_qa"]["files"]
    splits = json.loads(files["sqa/pid_splits.json"])
    splits["test"].remove("not answered")
    write(
        tmp_path / "scienceqa",
        {"problems.json": files["sqa/problems.json"], "pid_splits.json": json.dumps(splits)},
    )
    rows = parse(files["a.jsonl"])
    questions = [ask(row, *(["a.png"] if "<image>" in row["prompt"] else [])) for row in rows]
    return questions, [row["text"] for row in rows], tmp_path


def check_places(score: TaskScore, num: int) -> None:
    assert [answer.place for answer in score.answers] == list(range(num))
    assert score.headline in score.scores


def test_mme_gets_the_calculations_sums_and_lmms_evals(mme: Run) -> None:
    score = score_mme(*mme, WHOLE)
    check_places(score, len(mme[0]))
    printed = RUNS["commands"]["calculation"]["stdout"]
    assert list(score.scores.values()) == numbers(printed, r"total score: (\S+)")
    assert [value for value, _ in score.categories.values()] == numbers(printed, r"\t \S+  score: (\S+)")
    assert sum(num for _, num in score.categories.values()) == len(mme[0])
    assert score.readings["lmms-eval"] == pytest.approx(RUNS["lmms-eval"]["mme"]["perception"], abs=1e-9)
    assert score.readings["lmms-eval"] != score.scores["perception"]
    assert "have neither yes nor no in their first four characters" in score.notes[0]


def test_a_part_of_mme_is_scored_by_whole_pairs_and_says_so(mme: Run) -> None:
    questions, texts, data = mme
    with pytest.raises(UsageError, match=r"1 images have one question, 0 more than two, and 1[0-9] categories none"):
        score_mme(questions[:5], texts[:5], data, WHOLE)
    score = score_mme(questions[:5], texts[:5], data, PART)
    check_places(score, 4)
    assert score.headline == "perception"
    assert "1 questions are not scored" in score.notes[-1]
    with pytest.raises(UsageError, match="1 images have one question"):
        score_mme(questions[:1], texts[:1], data, PART)
    with pytest.raises(UsageError, match="1 questions are not in"):
        score_mme([ask({"question_id": "OCR/x.jpg", "prompt": "Is it?"})], ["No"], data, PART)
    last = [place for place, question in enumerate(questions) if str(question.id).startswith("code_reasoning")]
    score = score_mme([questions[i] for i in last], [texts[i] for i in last], data, PART)
    assert score.headline == "cognition"


def test_mme_without_its_folder_or_with_one_of_another_form_is_refused(mme: Run, tmp_path: Path) -> None:
    questions, texts, data = mme
    with pytest.raises(UsageError, match="is missing: it is MME's folder"):
        score_mme(questions, texts, tmp_path / "nowhere", WHOLE)
    folder = data / "MME/MME_Benchmark_release_version"
    (folder / "OCR/._OCR0000.txt").write_bytes(b"\x00\x05\x16\x07")  # which macOS adds to archives
    assert score_mme(questions, texts, data, WHOLE).scores
    write(folder, {"empty/images/a.png": ""})
    with pytest.raises(UsageError, match="empty/questions_answers_YN' is missing"):
        score_mme(questions, texts, data, WHOLE)
    write(data / "other", {"MME/MME_Benchmark_release_version/readme.md": ""})
    with pytest.raises(UsageError, match="holds no question of MME"):
        score_mme(questions, texts, data / "other", WHOLE)


def test_seed_gets_what_the_script_prints_by_type_image_and_video(seed: Run) -> None:
    score = score_seed(*seed, WHOLE)
    check_places(score, len(seed[0]))
    found = [value for value, _ in score.categories.values()] + list(score.scores.values())
    printed = numbers(RUNS["commands"]["convert_seed_for_submission"]["stdout"], r": (\S+)%")
    assert [f"{value:.2f}" for value in found] == [f"{value:.2f}" for value in printed]
    assert score.headline == "all"
    assert score.readings["lmms-eval"] > score.scores["all"]
    assert "4 answers are not exactly a letter" in score.notes[0]


def test_seed_of_images_only_has_the_image_accuracy_as_its_number(seed: Run) -> None:
    questions, texts, data = seed
    places = [place for place, question in enumerate(questions) if not str(question.id).startswith("v")]
    score = score_seed([questions[i] for i in places], [texts[i] for i in places], data, WHOLE)
    assert score.headline == "image"
    printed = RUNS["commands"]["convert_seed_for_submission"]["stdout"]
    assert [f"{score.scores['image']:.2f}"] == re.findall(r"image accuracy: (\S+)%", printed)
    assert score.notes[0].startswith("The number is over images only")
    assert not any("are asked" in note for note in score.notes)
    less = score_seed([questions[i] for i in places[1:]], [texts[i] for i in places[1:]], data, PART)
    assert "34 of the 35 questions are asked" in less.notes[1]
    with pytest.raises(UsageError, match="1 of the 1 questions are not in"):
        score_seed([ask({"question_id": 7, "prompt": "?"})], ["A"], data, WHOLE)


def test_the_questions_about_images_are_read_without_those_about_videos(tmp_path: Path) -> None:
    rows = [{"question_id": key, "image": "a.png", "text": "?"} for key in (5, "v5", "7")]
    write(tmp_path, {"q.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
    assert [question.id for question in read_seed_images(tmp_path / "q.jsonl", tmp_path)] == [5, "7"]


def test_pope_gets_the_mean_of_the_f1_that_the_original_prints(pope: Run) -> None:
    score = score_pope(*pope, WHOLE)
    check_places(score, len(pope[0]))
    printed = dict(re.findall(r"Category: (\w+), .*?F1 score: (\S+)", COMMANDS["eval_pope"]["stdout"], flags=re.DOTALL))
    printed["popular"] = printed["random"]
    wanted = {name: float(value) * 100 for name, value in printed.items()}
    assert {name: value for name, (value, _) in score.categories.items()} == wanted
    assert score.scores["F1"] == pytest.approx(sum(wanted.values()) / 3)
    assert set(score.readings) == {
        f"{name}, all categories together" for name in ("eval_pope", "lmms-eval", "VLMEvalKit")
    }
    assert score.readings["lmms-eval, all categories together"] != score.scores["F1"]
    assert re.search(r"^\d+ answers other than yes count as yes", score.notes[0])


def test_pope_refuses_missing_questions_and_allows_a_part(pope: Run) -> None:
    questions, texts, data = pope
    with pytest.raises(UsageError, match="1 labels have no answer"):
        score_pope(questions[1:], texts[1:], data, WHOLE)
    score = score_pope(questions[1:5], texts[1:5], data, PART)
    assert list(score.categories) == ["random"]
    assert "F1 is the mean over random only" in score.notes[0]
    with pytest.raises(UsageError, match="1 questions are not in"):
        score_pope([ask({"question_id": "x", "prompt": "?"}, "a.jpg")], ["no"], data, PART)


def test_science_qa_gets_the_accuracies_that_the_original_prints(science: Run) -> None:
    score = score_science_qa(*science, WHOLE)
    check_places(score, len(science[0]))
    right, image = re.search(r"Correct: (\d+), .*IMG-Accuracy: (\S+)%", COMMANDS["eval_science_qa"]["stdout"]).groups()  # type: ignore[union-attr]
    assert sum(answer.score for answer in score.answers) == int(right)
    assert score.headline == "image accuracy"
    assert f"{score.scores['image accuracy']:.2f}" == image
    assert "No letter can be read out of" in score.notes[0]
    assert score.readings.keys() == {"lmms-eval"}


def test_science_qa_is_grouped_as_in_the_papers_tables(science: Run) -> None:
    questions, texts, data = science
    path = data / "scienceqa/problems.json"
    problems = json.loads(path.read_text(encoding="utf-8"))
    for place, problem in enumerate(problems.values()):
        problem |= {"subject": "social science", "grade": f"grade{place % 12 + 1}", "hint": "x" * (place % 2)}
        problem["image"] = None if place % 4 < 2 else "image.png"
    path.write_text(json.dumps(problems), encoding="utf-8")
    score = score_science_qa(questions, texts, data, WHOLE)
    num = len(questions)
    counts = {name: count for name, (_, count) in score.categories.items()}
    assert list(counts) == ["SOC", "TXT", "IMG", "NO", "G1-6", "G7-12"]
    assert counts["SOC"] == counts["G1-6"] + counts["G7-12"] == num
    assert counts["TXT"] == num // 2
    assert score.answers[0].categories == ("SOC", "NO", "G1-6")
    assert score.answers[3].categories == ("SOC", "TXT", "IMG", "G1-6")


def test_science_qa_without_images_says_so_and_other_ids_are_refused(science: Run) -> None:
    questions, texts, data = science
    places = [place for place, question in enumerate(questions) if not question.images]
    score = score_science_qa([questions[i] for i in places], [texts[i] for i in places], data, WHOLE)
    assert score.headline == "accuracy"
    assert "No question has an image" in " ".join(score.notes)
    with pytest.raises(UsageError, match="1 of the 1 questions are not in the split 'test'"):
        score_science_qa([ask({"question_id": "x", "prompt": "?"})], ["A"], data, WHOLE)


@pytest.mark.parametrize("name", ["pope", "mme", "seed", "seed_image", "scienceqa"])
def test_the_table_names_scorers_that_exist(name: str) -> None:
    scorers: list[Callable[..., Any]] = [resolve(TASKS[name].scorer), resolve(TASKS[name].score)]
    assert scorers[1] in (score_pope, score_mme, score_seed, score_science_qa)


class Reciter:
    """Answers questions with given texts, by their ids and first lines."""

    model_id = "recited"
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, *runs: Run) -> None:
        self.texts: dict[object, str] = {}
        for questions, texts, _ in runs:
            pairs = zip(questions, texts, strict=True)
            self.texts |= {(one.id, one.text.removeprefix("<image>\n").split("\n")[0]): text for one, text in pairs}

    def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
        for question in questions:
            yield Outcome(self.texts[question.id, question.text.split("\n")[0]])

    def close(self) -> None:
        pass


def place_files(data: Path, mme: Run, seed: Run, science: Run) -> None:
    """The questions' files in the official form, and empty files for images, which nothing opens."""
    folder = "MME/MME_Benchmark_release_version"
    rows = [{"question_id": one.id, "image": one.id, "text": one.text} for one in mme[0]]
    frames = {True: "SEED-Bench-video-image/0.png", False: "SEED-Bench-image/0.png"}
    kinds = [(one, str(one.id).startswith("v")) for one in seed[0]]
    lines = [{"question_id": one.id, "image": frames[is_video], "text": one.text} for one, is_video in kinds]
    turns = [
        {"id": one.id, "conversations": [{"value": one.text}]} | ({"image": "0.png"} if one.images else {})
        for one in science[0]
    ]
    asked = parse((data / "pope/llava_pope_test.jsonl").read_text(encoding="utf-8"))
    empty = [f"{folder}/{row['image']}" for row in rows] + [f"seed_bench/{name}" for name in frames.values()]
    empty += [f"pope/val2014/{row['image']}" for row in asked] + ["scienceqa/images/test/0.png"]
    write(data, dict.fromkeys(empty, ""))
    jsonl = {"MME/llava_mme.jsonl": rows, "seed_bench/llava-seed-bench.jsonl": lines}
    write(data, {path: "".join(json.dumps(row) + "\n" for row in found) for path, found in jsonl.items()})
    write(data, {"scienceqa/llava_test_CQM-A.json": json.dumps(turns)})


def test_the_way_from_the_official_files_to_the_originals_numbers(
    mme: Run, seed: Run, pope: Run, science: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mme[2]
    place_files(data, mme, seed, science)
    names = ["pope", "mme", "seed", "seed_image", "scienceqa"]
    reciter = Reciter(mme, seed, pope, science)
    monkeypatch.setattr("llava.commands.eval_tasks.load", lambda _: None)
    monkeypatch.setattr("llava.commands.eval_tasks.make_asker", lambda *_: reciter)
    assert main(["eval", *names, "--data", str(data), "--partial"]) == 0
    printed = capsys.readouterr().out
    f1 = score_pope(*pope, WHOLE).scores["F1"]
    calculated, converted = (
        RUNS["commands"][name]["stdout"] for name in ("calculation", "convert_seed_for_submission")
    )
    perception, _ = numbers(calculated, r"total score: (\S+)")
    assert re.findall(r"^(\w+): [\w ]+ (\S+) \(", printed, flags=re.MULTILINE) == [
        ("pope", f"{f1:.2f}"),
        ("mme", f"{perception:.2f}"),
        ("seed", re.findall(r"Total accuracy: (\S+)%", converted)[0]),
        ("seed_image", re.findall(r"image accuracy: (\S+)%", converted)[0]),
        ("scienceqa", re.findall(r"IMG-Accuracy: (\S+)%", COMMANDS["eval_science_qa"]["stdout"])[0]),
    ]
    # The originals' commands score the same answers files.
    for task, place in (("mme", "MME/answers/m.jsonl"), ("seed", "seed_bench/a.jsonl")):
        write(data, {place: (data / task / "answers/recited.jsonl").read_text(encoding="utf-8")})
    monkeypatch.chdir(data / "MME")
    assert convert_answer_to_mme.main(["--experiment", "m"]) == 0
    assert calculate_mme.main(["--results_dir", "eval_tool/answers/m"]) == 0
    assert capsys.readouterr().out == calculated
    monkeypatch.chdir(data / "seed_bench")
    assert seed_submission.main([*RUNS["commands"]["convert_seed_for_submission"]["argv"]]) == 0
    assert capsys.readouterr().out == converted
