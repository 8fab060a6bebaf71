"""lmms-eval 0.7.3 scores a model of ours with its own adapter and its own ``simple_evaluate``, all of it unmodified.

What it gets for each sample is what the model says when it is asked one question at a time, whatever the batch. One
defect of 0.7.3 is gone around in the task file, where its users can: its evaluator writes each (loss, is greedy) down
as a text and its multiple choice does not read that back, so the task says how its results are processed.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# By batch size, then task.
Logged = dict[str, dict[str, list[Any]]]

MAX_NEW_TOKENS = 8
TASKS = {
    # One image each, in the order in which lmms-eval would not take them: it sorts by length.
    "single": [
        {"question": "What is in the image?", "images": [0]},
        {"question": "What is in the image?", "images": [1]},
        {"question": "What is this, in a word?", "images": [2]},
    ],
    "several": [
        {"question": "What is in the images?", "images": [0, 1]},
        {"question": "Is this the image in which a cat is?", "images": [2, 0, 2]},
        {"question": "First <image> then <image> ?", "images": [1, 2]},
    ],
    "text": [
        {"question": "What is an image?", "images": []},
        {"question": "What is in it, then?", "images": []},
    ],
    # In a batch of two these two meet, and one of them has no image.
    "mixed": [
        {"question": "What is in the image?", "images": [2]},
        {"question": "What is it?", "images": []},
    ],
    "choices": [
        {"question": "Is it a cat?", "images": [0], "choices": ["yes", "no, a dog"], "answer": 0},
        {"question": "What is in the image?", "images": [2, 1], "choices": ["a", "the image", "?"], "answer": 2},
        {"question": "Is there an image?", "images": [], "choices": ["no", "What"], "answer": 1},
    ],
}
TASK_FILE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: {output_type}
doc_to_visual: !function images.doc_to_visual
doc_to_text: question
doc_to_target: answer
{more}
"""
GENERATION = f"""
generation_kwargs: {{max_new_tokens: {MAX_NEW_TOKENS}, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
CHOICE = """
doc_to_choice: choices
process_results: !function images.pick_the_likeliest
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
FUNCTIONS = """
from ast import literal_eval
from PIL import Image

def doc_to_visual(doc):
    return [Image.open(path).convert("RGB") if path.endswith("png") else path for path in doc["paths"]]

def pick_the_likeliest(doc, results):
    losses = [literal_eval(result)[0] for result in results]
    return {"acc": float(losses.index(min(losses)) == doc["answer"])}
"""


def write_tasks(folder: Path, images: list[Path]) -> None:
    folder.mkdir()
    (folder / "images.py").write_text(FUNCTIONS)
    for name, samples in TASKS.items():
        is_choice = "choices" in samples[0]
        output_type, more = ("multiple_choice", CHOICE) if is_choice else ("generate_until", GENERATION)
        (folder / f"{name}.yaml").write_text(TASK_FILE.format(name=name, output_type=output_type, more=more))
        lines = [
            {"answer": "nothing", **sample, "paths": [str(images[i]) for i in sample["images"]]} for sample in samples
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "broken.yaml").write_text(TASK_FILE.format(name="broken", output_type="generate_until", more=GENERATION))
    rows = [
        {"answer": "nothing", "question": "What is it?", "paths": [path]} for path in (str(images[0]), "a film.mp4")
    ]
    (folder / "broken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def run_folder(
    next_checkpoint: Path, square_checkpoint: Path, images: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder in which lmms-eval ran on both checkpoints, in one process, because it takes long to start."""
    folder = tmp_path_factory.mktemp("lmms-eval")
    run_lmms_eval(folder, [next_checkpoint, square_checkpoint], images)
    return folder


@pytest.fixture(scope="module")
def logged_by_checkpoint(run_folder: Path) -> dict[str, Logged]:
    """What lmms-eval logged, by checkpoint, batch size and task, in the order of the samples."""
    logged: dict[str, Logged] = json.loads((run_folder / "samples.json").read_text())
    for batches in logged.values():
        for tasks in batches.values():
            for samples in tasks.values():
                samples.sort(key=lambda sample: sample["doc_id"])
    return logged


@pytest.fixture(scope="module")
def printed(run_folder: Path) -> list[tuple[int, str, str]]:
    """The exit code, output and errors of each of the commands."""
    return [tuple(each) for each in json.loads((run_folder / "printed.json").read_text())]


def run_lmms_eval(folder: Path, checkpoints: list[Path], images: list[Path]) -> None:
    write_tasks(folder / "tasks", images)
    harness = ["eval", "--harness", "lmms-eval"]
    chosen = ["--model", str(checkpoints[1]), "--device", "cpu", "--include", str(folder / "tasks")]
    order = {
        "checkpoints": [str(checkpoint) for checkpoint in checkpoints],
        "tasks": str(folder / "tasks"),
        "names": list(TASKS),
        "batch_sizes": [1, 2, "engine"],
        "output": str(folder / "samples.json"),
        "commands": [
            [*harness, "single", "broken", *chosen, "--out", str(folder / "out"), "--limit", "2"],
            [*harness, "choices", *chosen],
            [*harness, "sinlge", *chosen],
            [*harness, "single", *chosen, "--conv-mode", "nonsense"],
            [*harness, "single", *chosen[:-1], str(folder / "nowhere")],
        ],
        "printed": str(folder / "printed.json"),
    }
    (folder / "order.json").write_text(json.dumps(order))
    script = Path(__file__).with_name("lmms_eval_run.py")
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "LM_HARNESS_CACHE_PATH": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "order.json")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def place(question: str, num_images: int, *, shares_batch_with_images: bool = False) -> str:
    """The message that lmms-eval makes of a question."""
    if "<image>" in question or not (num_images or shares_batch_with_images):
        return question
    return " ".join(["<image>"] * num_images) + "\n" + question


def ask_alone(loaded: Any, message: str, paths: list[Path]) -> str:
    from llava.answer import Sampling, answer
    from llava.conversation import conv_templates
    from llava.image.source import load_image

    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], message)
    conversation.append_message(conversation.roles[1], None)
    chosen = [load_image(str(path)) for path in paths]
    return answer(loaded, conversation, chosen, Sampling(max_new_tokens=MAX_NEW_TOKENS)).text


def loss_alone(loaded: Any, message: str, reply: str, paths: list[Path]) -> float:
    """The mean of -log p over the tokens of the reply, which stand at the end of the merged prompt."""
    import torch
    from PIL import Image

    from llava.conversation import conv_templates
    from llava.image.geometry import Size, plan_tiles
    from llava.image.pixels import make_pixels
    from llava.prompt import tokenizer_image_token

    def ids_of(answer: str | None) -> list[int]:
        conversation = conv_templates["vicuna_v1"].copy()
        conversation.append_message(conversation.roles[0], message)
        conversation.append_message(conversation.roles[1], answer)
        return tokenizer_image_token(conversation.get_prompt(), loaded.tokenizer)

    whole = ids_of(reply)
    said = whole[len(ids_of(None)) :]
    images = [Image.open(path).convert("RGB") for path in paths]
    pixels = [
        make_pixels(image, plan_tiles(Size(*image.size), loaded.spec.tiling), loaded.image_processor)
        for image in images
    ]
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=torch.tensor([whole]),
            images=pixels or None,
            image_sizes=[image.size for image in images] or None,
        ).logits[0]
    log_p = logits[-len(said) - 1 : -1].log_softmax(-1)
    return float(-log_p[torch.arange(len(said)), torch.tensor(said)].mean())


@pytest.mark.parametrize("kind", ["next_checkpoint", "square_checkpoint"])
def test_every_answer_and_likelihood_is_that_of_asking_alone(
    kind: str, request: pytest.FixtureRequest, images: list[Path], logged_by_checkpoint: dict[str, Logged]
) -> None:
    from llava.model.checkpoint import load_model

    checkpoint = request.getfixturevalue(kind)
    logged = logged_by_checkpoint[str(checkpoint)]
    loaded = load_model(checkpoint, device="cpu", dtype="float32")
    seen = set()
    for name in ("single", "several", "text", "mixed"):
        for i, sample in enumerate(TASKS[name]):
            paths = [images[k] for k in sample["images"]]
            for batch, tasks in logged.items():
                together = name == "mixed" and batch == "2"
                message = place(sample["question"], len(paths), shares_batch_with_images=together)
                expected = ask_alone(loaded, message, paths)
                assert [text.strip() for text in tasks[name][i]["said"]] == [expected], (name, i, batch)
                seen.add(expected)
    assert len(seen) >= 8, "unlike answers to unlike questions, or this shows nothing"
    for i, sample in enumerate(TASKS["choices"]):
        paths = [images[k] for k in sample["images"]]
        message = place(sample["question"], len(paths))
        losses = [loss_alone(loaded, message, f" {choice}", paths) for choice in sample["choices"]]
        for batch in ("1", "2"):
            tasks = logged[batch]
            found = tasks["choices"][i]
            # The adapter sends images as float16.
            heard = [ast.literal_eval(result)[0] for result in found["said"]]
            assert heard == pytest.approx(losses, rel=2e-3)
            assert found["acc"] == float(losses.index(min(losses)) == sample["answer"])


def test_the_command_prints_lmms_evals_table_and_keeps_every_answer(
    run_folder: Path, printed: list[tuple[int, str, str]], logged_by_checkpoint: dict[str, Logged]
) -> None:
    code, out, errors = printed[0]
    assert code == 1, errors
    assert [line.split() for line in out.splitlines()] == [
        ["task", "score", "value", "documents"],
        ["broken", "exact_match", "0.0000", "2"],
        ["single", "exact_match", "0.0000", "2"],
    ]
    assert "asks with the template 'vicuna_v1'" in errors
    assert "count as answered by nothing: 1 (broken 1). The first: A str is asked about" in errors
    results = json.loads((run_folder / "out/results.json").read_text())
    assert results["n-samples"]["single"] == {"original": 3, "effective": 2}
    assert results["config"]["conv_template"] == "vicuna_v1"
    samples = [json.loads(line) for line in (run_folder / "out/single.jsonl").read_text().splitlines()]
    (square,) = (tasks for name, tasks in logged_by_checkpoint.items() if "1.5" in Path(name).name)
    said = {sample["doc_id"]: sample["filtered_resps"] for sample in samples}
    assert said == {sample["doc_id"]: sample["said"] for sample in square["engine"]["single"][:2]}
    broken = [json.loads(line) for line in (run_folder / "out/broken.jsonl").read_text().splitlines()]
    assert [bool(sample["filtered_resps"][0]) for sample in sorted(broken, key=lambda each: each["doc_id"])] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "'choices' asks for likelihoods, which the engine does not compute."),
        (2, "lmms-eval has no task 'sinlge'. Did you mean single"),
        (3, "nonsense"),
        (4, "which is not a folder"),
    ],
)
def test_what_the_command_cannot_do_is_said(printed: list[tuple[int, str, str]], number: int, said: str) -> None:
    code, _, errors = printed[number]
    assert code == 2, errors
    assert said in errors
    assert "Traceback" not in errors


def test_without_lmms_eval_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.errors import UsageError
    from llava.eval.lmms_eval_run import prepare_tasks

    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.delitem(sys.modules, "lmms_eval.evaluator", raising=False)
    with pytest.raises(UsageError, match=r"pip install lmms-eval==0\.7\.3"):
        prepare_tasks(["mme"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="in one process"):
        prepare_tasks(["mme"])
