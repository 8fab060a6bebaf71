"""What a run says while it trains, and what it measures of itself."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerControl

from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.named_batches import NamedCollator, SampleNote, take_names, take_notes
from llava.train.report import meter as meters
from llava.train.report import throughput
from llava.train.report.html_report import say_duration
from llava.train.report.meter import Meter, name_sources
from llava.train.report.progress import ProgressCallback, describe_row
from llava.train.report.throughput import Costs, find_peak, measure_costs
from llava.train.speed.chunked_loss import build_target_loss
from tests.tiny import ANYRES, make_labels, make_model, make_pixels, pad


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def state() -> SimpleNamespace:
    return SimpleNamespace(global_step=0, max_steps=100, is_world_process_zero=True)


def run_steps(callback: ProgressCallback, meter_clock: Clock, clock: Clock, state: Any, num: int) -> None:
    """Steps of two seconds each, with a row of the log after each."""
    control: Any = TrainerControl()
    for _ in range(num):
        meter_clock.now += 2.0
        clock.now += 2.0
        state.global_step += 1
        callback.on_step_end(None, state, control)  # type: ignore[arg-type]
        row = {"loss": 1 / state.global_step, "learning_rate": 2e-5, "tokens_per_second": 1234.5, "peak_share": 0.417}
        callback.on_log(None, state, control, logs=row)  # type: ignore[arg-type]


def test_where_stderr_is_no_terminal_there_is_a_line_every_few_seconds(
    state: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    meter_clock, clock = Clock(), Clock()
    callback = ProgressCallback(Meter(meter_clock), clock)
    callback.on_train_begin(None, state, TrainerControl())  # type: ignore[arg-type]
    run_steps(callback, meter_clock, clock, state, 10)
    lines = capsys.readouterr().err.splitlines()
    # Rows come every 2 s, lines at most every 5: after steps 1, 4, 7 and 10.
    assert [re.match(r"llava: step (\d+) of 100", line)[1] for line in lines] == ["1", "4", "7", "10"]  # type: ignore[index]
    assert lines[-1] == ("llava: step 10 of 100 (10%): loss 0.1, lr 2e-05, 3 min 0 s left, 1,234 tokens/s, 42% of peak")
    state.global_step = 99
    run_steps(callback, meter_clock, clock, state, 1)
    assert "step 100 of 100 (100%)" in capsys.readouterr().err  # the last one is always said


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_bar_fits_the_terminal_and_keeps_what_matters_most(
    state: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    meter_clock, clock = Clock(), Clock()
    callback = ProgressCallback(Meter(meter_clock), clock)
    callback.on_train_begin(None, state, TrainerControl())  # type: ignore[arg-type]
    run_steps(callback, meter_clock, clock, state, 3)
    callback.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    drawn = [line.rstrip() for line in re.split(r"[\r\n]", text)]
    assert max(map(len, drawn)) <= width
    bar = next(line for line in reversed(drawn) if line.startswith("3/100"))
    assert "loss 0.3333" in bar
    assert ("3 min 14 s left" in bar) is (width >= 80)
    assert ("42% of peak" in bar) is (width >= 80)
    assert any(line.startswith("step 1: loss 1, lr 2e-05") for line in drawn)


def test_only_the_first_process_says_anything(state: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    state.is_world_process_zero = False
    meter_clock, clock = Clock(), Clock()
    callback = ProgressCallback(Meter(meter_clock), clock)
    callback.on_train_begin(None, state, TrainerControl())  # type: ignore[arg-type]
    run_steps(callback, meter_clock, clock, state, 3)
    assert capsys.readouterr().err == ""


def test_saving_and_evaluation_are_not_in_the_time_of_a_step() -> None:
    clock = Clock()
    meter = Meter(clock)
    for step in range(4):
        clock.now += 1.5
        meter.end_step()
        if step == 1:
            clock.now += 1000.0
            meter.leave_out_pause()
    assert meter.step_s == 1.5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3900, "1 h 5 min"), (200000, "2 d 7 h")]
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert say_duration(seconds) == text


def test_a_row_is_described_with_the_loss_of_each_source() -> None:
    row = {"loss": 1.23456, "loss/ocr": 2.0, "loss/vqa": 0.5, "grad_norm": 3.14159, "epoch": 1.0}
    many = {"loss": 1.0, **{f"loss/{name}": 2.0 for name in "abcdef"}}
    assert describe_row(many) == "loss 1 (a 2, b 2, c 2, d 2, 2 more)"
    assert describe_row(row) == "loss 1.235 (ocr 2, vqa 0.5), grad norm 3.14"


def test_sources_that_are_files_have_short_names_unless_they_would_be_equal() -> None:
    assert name_sources({"/a/vqa.json", "/b/ocr.jsonl", "chart"}) == {
        "/a/vqa.json": "vqa", "/b/ocr.jsonl": "ocr", "chart": "chart",
    }  # fmt: skip
    assert name_sources({"/a/data.json", "/b/data.json"}) == {name: name for name in ("/a/data.json", "/b/data.json")}


def test_batches_carry_notes_about_their_samples_and_packed_ones_too() -> None:
    ids = torch.tensor([1, 5, 6, 7])
    items = [
        {"input_ids": ids, "labels": torch.tensor([-100, -100, 6, 7]), "images": [], "image_sizes": [], "source": "a"},
        {"input_ids": ids, "labels": torch.tensor([1, -100, -100, 7]), "images": [], "image_sizes": []},
    ]
    batch = NamedCollator(InstructionCollator(0))([("x", items[0]), ("y", items[1])])
    assert take_names(batch) == ("x", "y")
    assert take_notes(batch) == (SampleNote("a", 2), SampleNote("", 1))  # nothing predicts a first token
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    packed = NamedCollator(lambda rows: {"rows": rows})([("x, y", items)])
    assert take_notes(packed) == (SampleNote("a", 2), SampleNote("", 1))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, dict[str, Any], Meter, Clock]]:
    """A model with a batch of two samples of unequal length, one with an image, and a meter that watches it."""
    model = make_model(**ANYRES).train()
    batch = pad([[1, -200, *range(3, 20)], [1, *range(3, 9)]])
    inputs = {**batch, "labels": make_labels(batch), "images": make_pixels(5), "image_sizes": [(48, 32)]}
    monkeypatch.setattr(meters, "gather_object", lambda values: values)
    clock = Clock()
    meter = Meter(clock)
    with meter.watching(model):
        yield model, inputs, meter, clock


def test_positions_are_those_of_the_decoder_without_padding(
    measured: tuple[Any, dict[str, Any], Meter, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, meter, clock = measured
    notes = [SampleNote("a", 3), SampleNote("b", 2)]
    monkeypatch.setattr(meters, "find_peak", lambda *_: 1e9)
    meter.begin_batch(inputs, notes)
    merged = model.prepare_inputs_labels_for_multimodal(
        inputs["input_ids"], None, inputs["attention_mask"], None, None, inputs["images"], inputs["image_sizes"]
    )
    lengths = merged[2].sum(1).tolist()
    assert lengths[0] > lengths[1] == 7
    model(**inputs)
    model.eval()
    model(**inputs)  # evaluation counts for nothing
    clock.now = 10.0
    meter.end_step()
    row = meter.take_row(torch.device("cpu"), torch.float32)
    assert row["samples_per_second"] == 0.2
    assert row["tokens_per_second"] == pytest.approx(sum(lengths) / 10, abs=0.05)
    operations = measure_costs(model).count(sum(lengths), sum(n**2 for n in lengths), 5, 5)
    assert row["peak_share"] == pytest.approx(operations / 10 / 1e9, abs=1e-4)
    assert "tokens_per_second" not in meter.take_row(torch.device("cpu"), torch.float32)  # sums start over


def test_the_peak_is_not_measured_in_a_run_of_a_moment(
    measured: tuple[Any, dict[str, Any], Meter, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, meter, clock = measured
    monkeypatch.setattr(meters, "find_peak", lambda *_: pytest.fail("it takes longer than the run"))
    meter.begin_batch(inputs, ())
    model(**inputs)
    clock.now = 0.1
    meter.end_step()
    assert "peak_share" not in meter.take_row(torch.device("cpu"), torch.float32)


def test_positions_of_packed_rows_are_squared_sample_by_sample() -> None:
    meter = Meter(Clock())
    decoder = nn.Identity().train()
    ids = torch.zeros(1, 7, dtype=torch.long)
    meter._count_positions(decoder, (), {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]])})
    assert (float(meter._sums.positions), float(meter._sums.squares)) == (7, 4**2 + 3**2)


class Samples:
    """A dataset whose records have these sources."""

    def __init__(self, *sources: str) -> None:
        self.source, self.sources = self, sources

    def __len__(self) -> int:
        return len(self.sources)

    def record(self, index: int) -> Any:
        return SimpleNamespace(source=self.sources[index])


def test_the_loss_of_a_source_is_the_mean_over_its_targets(
    measured: tuple[Any, dict[str, Any], Meter, Clock],
) -> None:
    model, inputs, meter, _ = measured
    counts = [int((row[1:] != -100).sum()) for row in inputs["labels"]]
    with meter.watching(model, Samples("/x/a.json", "b")):
        meter.begin_batch(inputs, [SampleNote("/x/a.json", counts[0]), SampleNote("b", counts[1])])
        watched = model(**inputs, target_loss=meter.watch(build_target_loss())).loss
        row = meter.take_row(torch.device("cpu"), torch.float32)
    assert {key for key in row if key.startswith("loss/")} == {"loss/a", "loss/b"}
    plain = model(**inputs, target_loss=build_target_loss()).loss
    assert watched.item() == plain.item()
    mean = (row["loss/a"] * counts[0] + row["loss/b"] * counts[1]) / sum(counts)
    assert mean == pytest.approx(plain.item(), rel=1e-5)
    texts = {key: inputs[key][1:] for key in ("input_ids", "labels", "attention_mask")}
    assert row["loss/b"] == pytest.approx(model(**texts).loss.item(), rel=1e-4)


def test_a_single_source_costs_nothing_and_is_not_told_beside_the_loss(
    measured: tuple[Any, dict[str, Any], Meter, Clock],
) -> None:
    model, inputs, meter, _ = measured
    loss = build_target_loss()
    for samples in (Samples("a", "a"), Samples("", ""), object()):
        with meter.watching(model, samples):
            meter.begin_batch(inputs, [SampleNote("a", 1), SampleNote("a", 1)])
            assert meter.watch(loss) is loss


def test_the_head_is_called_once_because_fsdp_frees_its_weights_after_that(
    measured: tuple[Any, dict[str, Any], Meter, Clock],
) -> None:
    model, inputs, meter, _ = measured
    loss, calls = build_target_loss(), []

    class Counted(nn.Linear):
        def __call__(self, *arguments: Any) -> Any:
            calls.append(1)
            return super().__call__(*arguments)

    model.lm_head = Counted(*model.lm_head.weight.T.shape, bias=False)
    counts = [int((row[1:] != -100).sum()) for row in inputs["labels"]]
    for sources, numbers in ((("a", "b"), counts), (("", ""), counts), (("a", "b"), [99, 1])):
        with meter.watching(model, Samples("a", "b", "")):
            notes = [SampleNote(source, number) for source, number in zip(sources, numbers, strict=True)]
            meter.begin_batch(inputs, notes)
            calls.clear()
            model(**inputs, target_loss=meter.watch(loss))
            assert len(calls) == 1


def test_targets_that_the_model_cut_off_have_no_source(measured: tuple[Any, dict[str, Any], Meter, Clock]) -> None:
    model, inputs, meter, _ = measured
    with meter.watching(model, Samples("a", "b")):
        meter.begin_batch(inputs, [SampleNote("a", 99), SampleNote("b", 1)])
        model(**inputs, target_loss=meter.watch(build_target_loss()))
        assert not any(key.startswith("loss/") for key in meter.take_row(torch.device("cpu"), torch.float32))


def test_operations_are_six_per_trained_weight_and_less_for_frozen_ones() -> None:
    model = make_model(**ANYRES)
    layers = sum(m.weight.numel() for m in model.get_model().layers.modules() if isinstance(m, nn.Linear))
    projector = sum(m.weight.numel() for m in model.get_model().mm_projector.modules() if isinstance(m, nn.Linear))
    model.requires_grad_(False)
    model.get_model().mm_projector.requires_grad_(True)
    first = measure_costs(model)
    assert (first.per_position, first.per_target) == (4 * layers, 4 * model.lm_head.weight.numel())
    model.requires_grad_(True)
    whole = measure_costs(model)
    assert (whole.per_position, whole.per_target) == (6 * layers, 6 * model.lm_head.weight.numel())
    patches = model.get_vision_tower().num_patches
    of_tower = [costs.per_tile - 6 * projector * patches for costs in (first, whole)]
    assert of_tower[1] == 3 * of_tower[0] > 0
    model.tower_cache = object()
    assert measure_costs(model).per_tile == 6 * projector * patches
    assert Costs(1, 10, 100, 1000).count(1, 2, 3, 4) == 4321


def test_the_peak_of_a_cpu_is_measured_and_that_of_a_known_card_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_peak(torch.device("cpu"), torch.float32) > 1e8
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert find_peak(torch.device("cuda"), torch.bfloat16) == 989e12
    for name, peak in (("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA L40", 181e12), ("NVIDIA H20", 148e12)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert find_peak(torch.device("cuda"), torch.float16) == peak
    monkeypatch.setattr(throughput, "_measure_peak", lambda *_: 7.0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA RTX A1000 Laptop GPU")
    assert find_peak(torch.device("cuda"), torch.bfloat16) == 7.0, "no A100, and no A10"
