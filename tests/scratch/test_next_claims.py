"""benchmarks/next_claims.py compares arms that differ in one thing, and continues where it was stopped."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import claim_questions, claim_talking, next_claims
from benchmarks.claim_questions import TYPE_PX, draw_type_item
from benchmarks.claim_talking import Talker, make_small
from benchmarks.next_claims import CLAIMS, main
from llava.answer import write_chat
from llava.backends.preparation import prepare
from llava.image.source import load_image
from llava.model.checkpoint import load_model
from llava.model.lexical.features import read_features
from llava.sampling import Sampling
from llava.scratch.talking.adapter_samples import THING, SampleSource, encode, write_prefix
from llava.scratch.talking.adapter_training import AdapterTraining
from llava.scratch.talking.thing_samples import ThingSamples
from llava.synth.words import is_held_out
from tests.scratch.tiny_talking import write_things
from tests.tiny_lexical import draw, use_stand_ins, write_lexical

STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def _small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_stand_ins(patch)
        patch.setattr(claim_questions, "NUM_QUESTIONS", dict.fromkeys(claim_questions.NUM_QUESTIONS, 2))
        patch.setattr(next_claims, "NUM_TOWER_QUESTIONS", (4, 2, 2))
        patch.setattr(claim_talking, "BATCH_SIZE", 1)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    write_lexical(folder / "talking", conversation_template="smollm2", max_position_embeddings=4096)
    (folder / "things").mkdir()
    facts = write_things(folder / "things")
    return ["--model", f"{folder / 'talking'}", "--things", f"{folder / 'things'}", "--facts", f"{facts}"]


@pytest.fixture(scope="module")
def talker(inputs: list[str]) -> Talker:
    return Talker(load_model(inputs[1]))


@pytest.fixture(scope="module")
def output(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    assert compare(folder, inputs) == 0
    return folder


def compare(folder: Path, inputs: list[str], *more: str) -> int:
    steps = ["--steps", str(STEPS), "--tower-steps", "1"]
    return main([str(folder), *inputs, *steps, "--seeds", "3", "5", *more])


def read_claims(folder: Path) -> Any:
    return json.loads((folder / "claims.json").read_text("utf-8"))


def read_weights(checkpoint: Path) -> Any:
    return torch.load(checkpoint, weights_only=True)["adapter"]


def test_every_claim_has_a_difference_of_each_measure_with_its_interval(output: Path) -> None:
    found = read_claims(output)
    assert found["claims"].keys() == CLAIMS.keys()
    for name, claim in CLAIMS.items():
        assert found["claims"][name].keys() == set(claim.measures)
        for each in found["claims"][name].values():
            assert 0 <= each["without"] <= 1
            assert 0 <= each["with_"] <= 1
            assert each["low"] <= each["mean"] <= each["high"]
            assert each["mean"] == pytest.approx(each["with_"] - each["without"])
            assert each["mean"] == pytest.approx(sum(each["by_seed"]) / 2)
            assert each["num_questions"] >= 2
    assert (output / "claims.png").read_bytes()[:4] == b"\x89PNG"


def test_what_is_done_is_not_done_again(
    output: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is left to do")

    before = read_claims(output)
    monkeypatch.setattr(next_claims, "load_model", load)
    assert compare(output, inputs, "--claims", "anyres", "tower") == 0
    after = read_claims(output)
    assert after["claims"] == {name: before["claims"][name] for name in ("anyres", "tower")}
    shown = capsys.readouterr().out
    assert "| one tile -> AnyRes | type of 12 to 18 px | 2 |" in shown
    assert "small decoder" not in shown


def test_an_interrupted_training_continues_to_the_same_weights(
    output: Path, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = AdapterTraining.run

    def stop_after_one(training: AdapterTraining, until: int | None = None) -> None:
        run(training, 1)

    monkeypatch.setattr(AdapterTraining, "run", stop_after_one)
    with pytest.raises(SystemExit, match="The same command continues"):
        compare(tmp_path, inputs, "--claims", "data")
    monkeypatch.undo()
    assert not list(tmp_path.glob("**/answers/*"))
    here = f"{STEPS}-steps/no-documents-3"
    assert len((tmp_path / here / "log.jsonl").read_text().splitlines()) == 1
    compare(tmp_path, inputs, "--claims", "data")
    ours, whole = (read_weights(folder / here / "checkpoint.pt") for folder in (tmp_path, output))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_arms_of_a_claim_differ_in_one_thing(output: Path) -> None:
    steps = output / f"{STEPS}-steps"
    assert not (steps / "one-tile-3").exists(), "it has the weights of the whole pipeline"
    with_, without = (read_weights(steps / f"{arm}-3/checkpoint.pt") for arm in ("whole", "no-documents"))
    assert any(not torch.equal(with_[name], without[name]) for name in with_)
    tower = output / "tower-1-steps"
    frozen, tuned, start = (
        load_model(model).model.get_vision_tower().state_dict()
        for model in (*(tower / f"tower-{arm}-3/claim/model" for arm in ("frozen", "tuned")), "embedded")
    )
    assert all(torch.equal(frozen[name], start[name]) for name in start)
    assert any(not torch.equal(tuned[name], start[name]) for name in start)


def test_one_arm_sees_a_single_tile_with_the_same_weights(output: Path, talker: Talker) -> None:
    checkpoint = output / f"{STEPS}-steps/whole-3/checkpoint.pt"
    image = load_image(draw(192, 96))
    for is_tiled, num_tiles in ((True, 3), (False, 1)):
        loaded = talker.take(checkpoint, is_tiled=is_tiled)
        prepared = prepare(loaded, write_chat(loaded, [("What?", 1, None)]), [image], Sampling())
        assert prepared.plans[0].num_tiles == num_tiles
    state = torch.load(checkpoint, weights_only=True)
    served = dict(talker.loaded.model.named_parameters())
    name = "model.layers.1.mlp.down_proj.image_lora_B.weight"
    assert torch.equal(served[name], state["adapter"]["B.1_mlp_down_proj"].bfloat16().to(served[name].dtype))


def test_the_small_decoder_reads_in_training_what_it_reads_when_asked(inputs: list[str], talker: Talker) -> None:
    small = make_small(talker)
    assert 0.9 < small.num_trained / talker.num_trained <= 1 or small.loaded.model.config.mm_image_adapter["rank"] == 1
    question, loaded = "What does it say?", small.loaded
    prepared = prepare(loaded, write_chat(loaded, [(question, 1, None)]), [load_image(draw(96, 96))], Sampling())
    [features] = [image.features for image in prepared.images]
    assert features is not None
    description = loaded.model.get_vision_tower().read_out(features)
    tokenizer = claim_talking.PlainTokenizer(loaded.tokenizer.backend_tokenizer)
    sample = encode(description, [(question, "")], tokenizer, torch.zeros(10, 3))
    asked = [id for id, is_target in zip(sample.ids, sample.is_target, strict=True) if not is_target and id != THING]
    before, after = (list(part) for part in split_at(prepared.prompt.input_ids, -200))
    assert loaded.tokenizer.backend_tokenizer.encode(write_prefix()).ids == before
    assert asked == [*read_features(features).token_ids.tolist(), *after]

    llama, ids = small.make_llama(), torch.tensor([before + asked])
    ours = llama.logits(llama.hidden(llama.embeddings[ids], None))
    theirs = load_model("embedded", dtype="float32").model(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def split_at(ids: Any, mark: int) -> tuple[Any, Any]:
    place = list(ids).index(mark)
    return ids[:place], ids[place + 1 :]


def test_without_documents_no_record_is_one(inputs: list[str]) -> None:
    things = ThingSamples(Path(inputs[3]), Path(inputs[5]))
    source = SampleSource(claim_talking.PlainTokenizer(Words()), things, 0.0, kinds=next_claims.WITHOUT_DOCUMENTS)
    seen: set[str] = set()
    samples = source.draw(random.Random(0))
    for _ in range(60):
        seen.update(next(samples).ids)  # type: ignore[arg-type]
    assert not {"TOTAL", "Total", "chart", "bar"} & {str(word).strip(".,:?") for word in seen}
    assert {"line", "shape"} & {str(word).strip(".,:?") for word in seen}


class Words:
    """A tokenizer whose ids are the words themselves."""

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        class Encoding:
            ids = text.split()

        return Encoding


@pytest.mark.parametrize("sizes", TYPE_PX.values())
def test_type_is_of_the_size_that_is_asked_for_and_of_held_out_words(sizes: tuple[int, int]) -> None:
    for seed in range(8):
        image, _, truth = draw_type_item(random.Random(seed), sizes)
        assert 400 <= min(image.size) <= max(image.size) <= 1500
        assert all(is_held_out(word) for word in truth.answers[0].split())
        pixels = image.convert("L").point(lambda value: 255 * (value < 130))
        box = pixels.getbbox()
        assert box is not None
        assert 0.3 * sizes[0] < box[3] - box[1] < 1.5 * sizes[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", "1"], "an interval takes 2 to 10"),
        (["--seeds", "1", "1"], "names 1 seeds"),
        (["--steps", "0"], "at least 1"),
        (["--things", "nowhere"], "--things is nowhere, which is not there"),
        (["--claims", "scale"], "invalid choice: 'scale'"),
    ],
)
def test_a_wrong_call_is_explained(
    more: list[str], said: str, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path), *inputs, *more])
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_a_model_that_does_not_talk_is_refused(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path), *inputs, "--model", "embedded", "--claims", "data"])
    assert error.value.code == 1
    assert "is no talking model" in capsys.readouterr().err
