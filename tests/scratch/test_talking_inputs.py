"""The adapter's training from its inputs to a checkpoint: by commands, on any machine, with the same numbers."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.errors import UsageError
from llava.model.lexical.lexical_projector import LexicalProjector
from llava.scratch.talking import adapter_training, bundle, prepare, thing_facts
from llava.scratch.talking.adapter_batches import StepBatches, collate
from llava.scratch.talking.adapter_samples import KINDS, SampleSource
from llava.scratch.talking.adapter_training import (
    CHECKPOINT,
    AdapterTraining,
    Course,
    Peers,
    Schedule,
    loss_of,
    stopping_by_signals,
)
from llava.scratch.talking.comparison_records import draw_bar_comparison_record
from llava.scratch.talking.document_records import MAKERS
from llava.scratch.talking.held_out_loss import HeldOut
from llava.scratch.talking.seen_records import Record
from llava.scratch.talking.small_llama import Adapter
from llava.scratch.talking.thing_facts import keep_fact
from llava.scratch.talking.thing_samples import ThingSamples
from llava.scratch.talking.training_files import TrainingFiles, find_parts
from tests import tiny_gguf, tiny_tokenizers
from tests.scratch.tiny_talking import write_things

ROWS = 600
PLAIN = Course()
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
}


class Inputs:
    """Files as a training gets them, of a tiny language model in 4 bits."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        rope = {"rope_type": "default", "rope_theta": CONFIG["rope_theta"]}
        shape = {name: value for name, value in CONFIG.items() if name not in ("model_type", "rope_theta")}
        config = LlamaConfig(**shape, rope_parameters=rope, tie_word_embeddings=True, initializer_range=0.1)
        self.reference = LlamaForCausalLM(config).eval().requires_grad_(False)
        self.tokenizer = tiny_tokenizers.byte_level(["<|im_start|>", "<|im_end|>"])
        self.gguf, self.folder = folder / "tiny.gguf", folder
        tensors = {name: value for name, value in self.reference.state_dict().items() if name != "lm_head.weight"}
        vocabulary = tiny_gguf.describe_bpe(self.tokenizer, "smollm", ROWS)
        tiny_gguf.write_model(self.gguf, tensors, CONFIG, vocabulary, kind="Q4_1")
        (folder / "things").mkdir()
        facts = write_things(folder / "things")
        torch.manual_seed(1)
        projector = LexicalProjector(SimpleNamespace(hidden_size=CONFIG["hidden_size"]))
        save_file(projector.state_dict(), folder / "projector.safetensors")
        prepare.write_model(self.gguf, folder / "prepared")
        self.files = TrainingFiles(
            self.gguf, folder / "prepared/tokenizer.json", folder / "things", facts, folder / "projector.safetensors"
        )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


def run_main(patch: pytest.MonkeyPatch, module: Any, *arguments: object) -> None:
    patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


def make_source(inputs: Inputs) -> SampleSource:
    things = ThingSamples(inputs.files.things, inputs.files.facts)
    return SampleSource(inputs.files.read_tokenizer(), things, thing_share=0.5, max_tokens=900)


def make_training(
    inputs: Inputs, folder: Path, course: Course = PLAIN, batch_size: int = 1, peers: Peers | None = None
) -> AdapterTraining:
    model = inputs.files.read_model()
    torch.manual_seed(3)
    adapter = Adapter(model.weights, model.sizes, 2, 2)
    projector = LexicalProjector(SimpleNamespace(hidden_size=CONFIG["hidden_size"]))
    schedule = Schedule(steps=3, batch_size=batch_size, rate=1e-2, seed=4)
    return AdapterTraining(model, adapter, projector, make_source(inputs).draw, schedule, folder, course, peers)


def read_log(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())]


def test_the_prepared_language_model_is_that_of_its_file(inputs: Inputs) -> None:
    model = inputs.files.read_model()
    ids = torch.tensor([[5, 9, 2, 44, 17]])
    named = {f"model.{name}": value for name, value in model.weights.items()}
    inputs.reference.load_state_dict({**named, "lm_head.weight": model.embeddings})
    ours = model.logits(model.hidden(model.embeddings[ids], None))
    torch.testing.assert_close(ours, inputs.reference(input_ids=ids).logits, atol=1e-4, rtol=1e-4)

    stored = torch.load(inputs.folder / "prepared/smol.pt", weights_only=True)
    assert all(value.dtype == torch.float32 for value in stored.values())
    assert torch.equal(stored["blk.1.attn_q.weight"], model.weights["layers.1.self_attn.q_proj.weight"])
    text = "<|im_start|>user\nWhat is it? 12<|im_end|>"
    assert inputs.files.read_tokenizer().decode(inputs.files.read_tokenizer().encode(text).ids, False) == text
    assert inputs.files.read_tokenizer().encode(text).ids[0] == inputs.tokenizer.convert_tokens_to_ids("<|im_start|>")


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("A tea cup is a small cup for tea. It is nice.", "A tea cup is a small cup for tea."),
        ("Tea cups are small vessels that hold tea.", "Tea cups are small vessels that hold tea."),
        ("A tea cup is a small cup for", None),  # no end
        ("A mug is a small cup for coffee.", None),  # another thing
        ("A tea cup is a small cup that is native to Borneo.", "A tea cup is a small cup."),
        ("I think a tea cup is a small cup.", None),
        ("A tea cup is a cup and a cup and a cup for tea.", None),
        ("A tea cup is a cup for tea, which is a cup for a tea cup.", "A tea cup is a cup for tea."),
        ("A tea cup is a type of small bird.", None),  # another kind
        ("A tea cup is a bird.", None),
        ("A tea cup is used to feed a bird.", "A tea cup is used to feed a bird."),
        ("A tea cup is " + "very " * 3 + "big " * 20 + "indeed.", None),
    ],
)
def test_a_fact_is_kept_if_it_is_a_sentence_about_the_thing(answer: str, kept: str | None) -> None:
    assert keep_fact(answer, "tea cup", "cup") == kept


def test_facts_continue_where_they_were_stopped(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def ask_all(_: Any, questions: list[str]) -> Any:
        names = [question.split(",")[0].removesuffix("? Answer in one short sentence.")[10:] for question in questions]
        asked.append(names)
        for name in names:
            if len(asked) == 1 and len(names) - names.index(name) < 3:
                raise KeyboardInterrupt
            yield f"A {name.strip()} is a thing like a dish or an animal, as people know."

    monkeypatch.setattr(thing_facts, "ask_all", ask_all)
    monkeypatch.setattr("llava.model.checkpoint.load_model", lambda *_, **__: None)
    file = tmp_path / "facts.json"
    with pytest.raises(KeyboardInterrupt):
        run_main(monkeypatch, thing_facts, inputs.files.things, file)
    with file.with_suffix(".jsonl").open("a") as log:
        log.write('{"name": "fox", "ans')  # as a killed process leaves it
    run_main(monkeypatch, thing_facts, inputs.files.things, file)
    run_main(monkeypatch, thing_facts, inputs.files.things, file)
    first, second = asked
    assert sorted(name.strip() for name in first) == ["cup", "dog", "fox", "owl"]
    assert sorted(second) == sorted(first[2:])
    assert list(json.loads(file.read_text())) == ["cup", "dog", "fox", "owl"]


def test_workers_draw_the_same_batches(inputs: Inputs) -> None:
    batches = StepBatches(make_source(inputs).draw, 7, 2)
    here, there = (list(batches.read(range(1, 4), workers)) for workers in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert one.num_tokens == other.num_tokens
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    assert not torch.equal(here[0].looks_XD, here[1].looks_XD)


def test_workers_outlive_signals_and_end_with_what_reads_them(inputs: Inputs) -> None:
    read = StepBatches(make_source(inputs).draw, 7, 2).read(range(1, 5), 1)
    first = next(read)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid or 0, number)
    assert [first.num_tokens > 0, *(batch.num_tokens > 0 for batch in read)] == [True] * 4
    del read
    worker.join(timeout=30)
    assert worker.exitcode == 0


def test_bfloat16_changes_the_loss_by_its_rounding_alone(inputs: Inputs) -> None:
    model, projector = inputs.files.read_model(), LexicalProjector(SimpleNamespace(hidden_size=64)).eval()
    adapter = Adapter(model.weights, model.sizes, 2, 2)
    drawn = make_source(inputs).draw(random.Random(0))
    batch = collate([next(drawn) for _ in range(3)])
    exact, count = loss_of(model, adapter, projector, batch)
    rounded = model.to(torch.device("cpu"), torch.bfloat16)
    assert rounded.weights["norm.weight"].dtype == torch.float32
    loss, same = loss_of(rounded, adapter, projector, batch)
    loss.backward()
    assert count == same
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)
    assert loss.item() != exact.item()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in adapter.parameters())


def test_a_stopped_training_is_saved_and_continues_with_the_same_numbers(inputs: Inputs, tmp_path: Path) -> None:
    make_training(inputs, tmp_path / "whole").run()
    for _ in range(3):
        make_training(inputs, tmp_path / "minutes", Course(minutes=0)).run()  # each takes the step that it is at
    stopped = make_training(inputs, tmp_path / "stopped")
    stopped.stop()
    stopped.run()
    assert (stopped.step, torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)["step"]) == (1, 1)
    assert [step for step, _ in read_log(tmp_path / "whole")] == [0, 1, 2]
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "minutes")
    assert read_log(tmp_path / "whole")[:1] == read_log(tmp_path / "stopped")


@pytest.mark.parametrize(("is_passed_on", "left"), [(True, []), (False, [signal.SIGTERM])])
def test_the_second_signal_ends_at_once_except_under_torchrun_which_sends_it_itself(
    is_passed_on: bool, left: list[int], inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: is_passed_on)
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        training = make_training(inputs, tmp_path)
        with stopping_by_signals(training):
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            assert seen == left
            training.run()
        signal.raise_signal(signal.SIGTERM)
        assert seen == [*left, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 1


class Threads(Peers):
    """One of two threads in place of processes."""

    meeting = threading.Barrier(2, timeout=60)
    given: ClassVar[dict[int, torch.Tensor]] = {}

    def __init__(self, rank: int) -> None:
        self.rank, self.count, self.parent = rank, 2, os.getppid()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.given[self.rank] = values
        self.meeting.wait()
        total = self.given[0] + self.given[1]
        self.meeting.wait()
        return total


def test_two_processes_share_each_batch_and_learn_what_one_does(inputs: Inputs, tmp_path: Path) -> None:
    alone = make_training(inputs, tmp_path / "alone", batch_size=3)
    both = [make_training(inputs, tmp_path / "both", batch_size=3, peers=Threads(rank)) for rank in (0, 1)]
    for training in (alone, *both):
        training.projector.dropout.p = 0.0  # whose masks depend on what else is in the batch
    alone.run()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(AdapterTraining.run, both))
    lines = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
             for name in ("alone", "both")]  # fmt: skip
    for one, other in zip(*lines, strict=True):
        assert all(one[name] == other[name] for name in ("step", "targets", "tokens"))
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-3)
    for name, value in alone.adapter.state_dict().items():
        first, second = (training.adapter.state_dict()[name] for training in both)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, value, rtol=1e-3, atol=1e-4)


def test_processes_whose_torchrun_was_killed_end_and_save(inputs: Inputs, tmp_path: Path) -> None:
    both = [make_training(inputs, tmp_path, batch_size=2, peers=Threads(rank)) for rank in (0, 1)]
    both[1]._peers.parent = -1
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(AdapterTraining.run, both))
    assert [training.step for training in both] == [1, 1]
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 1


def test_a_batch_has_a_sample_for_each_process(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch 1 has no sample for each of 2 processes"):
        make_training(inputs, tmp_path, peers=Threads(0))


def test_measuring_changes_no_number_and_covers_every_kind(inputs: Inputs, tmp_path: Path) -> None:
    held_out = HeldOut(make_source(inputs), per_kind=1, batch_size=2)
    make_training(inputs, tmp_path / "plain").run(until=1)
    measured = make_training(inputs, tmp_path / "measured", Course(held_out=held_out, measure_steps=1))
    measured.run(until=1)
    assert read_log(tmp_path / "plain") == read_log(tmp_path / "measured")
    lines = [json.loads(line) for line in (tmp_path / "measured/held_out.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert set(lines[0]["loss"]) == set(KINDS)
    assert lines[0]["loss"] != lines[1]["loss"]
    measured.draw_curve()
    assert (tmp_path / "measured/curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_training_draws_the_kinds_that_are_named(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = inputs.files
    drawn = []

    def draw(rng: random.Random) -> Record:
        drawn.append("bars")
        return draw_bar_comparison_record(rng)

    monkeypatch.setitem(MAKERS, "bars", (0.1, draw))
    for kind in set(MAKERS) - {"bars"}:
        monkeypatch.setitem(MAKERS, kind, (1.0, lambda rng, kind=kind: pytest.fail(f"draws {kind}")))
    given = ["--model", inputs.gguf, "--tokenizer", files.tokenizer, "--projector", files.projector]
    given += ["--things", files.things, "--facts", files.facts, "--thing-share", 0, "--kinds", "bars"]
    common = ["--steps", 1, "--batch", 2, "--rank", 2, "--measure-steps", 0, "--output", tmp_path / "out"]
    run_main(monkeypatch, adapter_training, *given, *common)
    assert len(drawn) >= 2


def test_a_bundle_in_parts_trains_as_its_files_do(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = inputs.files
    common = ["--steps", 1, "--batch", 1, "--rank", 2, "--measure-steps", 0]
    given = ["--things", files.things, "--facts", files.facts, "--projector", files.projector]
    run_main(monkeypatch, bundle, tmp_path / "b.tar", *given, "--gguf", inputs.gguf, "--part-mib", 1)
    parts = find_parts(tmp_path / "b.tar")
    assert len(parts) > 2
    assert {part.stat().st_size for part in parts[:-1]} == {2**20}
    direct = ["--model", inputs.gguf, "--tokenizer", files.tokenizer, *given]
    run_main(monkeypatch, adapter_training, "--bundle", tmp_path / "b.tar", "--output", tmp_path / "one", *common)
    run_main(monkeypatch, adapter_training, *direct, "--output", tmp_path / "other", *common)
    one, other = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("one", "other"))
    assert one["step"] == 1
    assert any(value.any() for name, value in one["adapter"].items() if name.startswith("B"))
    for part in ("adapter", "projector"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    assert (tmp_path / "one/curve.png").exists()

    parts[1].unlink()
    with pytest.raises(SystemExit, match="1"):
        run_main(monkeypatch, adapter_training, "--bundle", tmp_path / "b.tar", "--output", tmp_path / "none", *common)


def test_an_incomplete_bundle_is_refused_by_name(
    inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        with pytest.raises(SystemExit):
            run_main(monkeypatch, adapter_training, "--output", tmp_path / "out", *arguments)
        return capsys.readouterr().err

    assert "neither" in fail("--bundle", tmp_path / "no.tar")
    assert "--model" in fail("--things", inputs.files.things)
    assert f"--adapter: there is no '{tmp_path / 'a.pt'}'" in fail("--adapter", tmp_path / "a.pt")
    for number in (1, 3):
        (tmp_path / f"b.tar.00{number}").write_bytes(b"x" * 2000)
    assert "b.tar.002 is missing" in fail("--bundle", tmp_path / "b.tar")
    (tmp_path / "b.tar.003").unlink()
    assert "not the end of a whole bundle" in fail("--bundle", tmp_path / "b.tar")
