"""The engine gives the answers of ``generate`` under any load, and survives every failure without leaks."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llava.engine import paged
from llava.engine.engine import Engine, EngineClosed, EngineFull
from llava.engine.sampler import BadLogits
from llava.engine.scheduler import RequestTooLarge
from llava.engine.stream import Piece, Question, Stream
from llava.errors import UsageError
from llava.image import geometry
from llava.image.geometry import plan_tiles
from llava.image.pixels import ImageProcessor, make_pixels
from llava.image.source import load_image
from llava.prompt import Prompt
from llava.sampling import Sampling
from tests.tiny import ANYRES, FAMILIES, SLOT, TILE_PX, make_model
from tests.tiny_tokenizers import words_and_letters

# Seconds, many times longer than anything here takes.
PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return words_and_letters("the cat sat on a red mat and saw me")


def load(tokenizer: Any, family: str = "llama", **changes: Any) -> Any:
    model = make_model(family, **ANYRES, **changes).eval()
    processor = ImageProcessor(size=TILE_PX)
    return SimpleNamespace(
        tokenizer=tokenizer,
        model=model,
        image_processor=processor,
        spec=SimpleNamespace(tiling=model.tiling()),
        context_tokens=1024,
        template="llava_v1",
    )


@pytest.fixture(scope="module")
def loaded(tokenizer: Any) -> Any:
    return load(tokenizer)


@pytest.fixture
def engine(loaded: Any) -> Iterator[Engine]:
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        yield engine
    audit(engine)


def audit(engine: Engine) -> None:
    """Asserts that after the end no request is left and every block is available again."""
    scheduler = engine._scheduler
    scheduler.audit()
    assert scheduler.is_idle
    assert scheduler.pool.num_available == scheduler.pool.num_blocks
    assert engine.stats().num_running == engine.stats().num_waiting == 0
    assert engine._num_open == 0


def draw(seed: int, width: int, height: int) -> Any:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return load_image(Image.fromarray(noise))


IMAGES = [draw(1, 60, 40), draw(2, 20, 90), draw(3, 30, 30)]


def question(loaded: Any, ids: list[int], images: list[Any] = [], **settings: Any) -> Question:  # noqa: B006
    plans = [plan_tiles(image.size, loaded.spec.tiling) for image in images]
    num_positions = len(ids) - len(images) + sum(plan.num_positions for plan in plans)
    sampling = Sampling(**{"max_new_tokens": 12, **settings})
    return Question(Prompt(tuple(ids), None, num_positions), images, plans, sampling)


def mixed_questions(loaded: Any, seed: int, count: int) -> list[Question]:
    """Questions of all lengths that share prefixes and images."""
    rng = random.Random(seed)
    questions = []
    for _ in range(count):
        ids = [1, 5, 6, 7, 8][: rng.randint(1, 5)]
        images = rng.choices(IMAGES, k=rng.choice([0, 0, 1, 1, 2]))
        for _ in images:
            ids += [SLOT, 9, *rng.choices(range(3, 110), k=rng.choice([0, 1, 20]))]
        ids += rng.choices(range(3, 110), k=rng.randint(1, 6))
        questions.append(question(loaded, ids, images, max_new_tokens=rng.randint(1, 16)))
    return questions


def generate(loaded: Any, asked: Question) -> list[int]:
    """The reference: greedy ``generate``."""
    pixels = [
        make_pixels(image.image, plan_tiles(image.size, loaded.spec.tiling), loaded.image_processor)
        for image in asked.images
    ]
    return loaded.model.generate(
        torch.tensor([asked.prompt.input_ids]),
        images=pixels or None,
        image_sizes=[tuple(image.size) for image in asked.images] or None,
        max_new_tokens=asked.sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=list(asked.stop_ids) or 119,
        pad_token_id=0,
    )[0].tolist()


def tokens(stream: Stream) -> list[int]:
    return [one.token for piece in stream for one in piece.tokens]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"block_tokens": 1},
        {"block_tokens": 32, "max_step_positions": 7},
        {"stall_s": 0.0},
        {"max_running": 2},
    ],
)
def test_many_requests_at_once_are_answered_as_each_alone(
    tokenizer: Any, family: str, settings: dict[str, Any]
) -> None:
    changes = {"mistral": {"sliding_window": 24}}.get(family, {})
    loaded = load(tokenizer, family, **changes)
    questions = mixed_questions(loaded, seed=len(settings), count=12)
    with Engine(loaded, memory_bytes=2**20, **{"block_tokens": 4, **settings}) as engine:
        streams = [engine.submit(asked) for asked in questions]
        said = [tokens(stream) for stream in streams]
        again = [tokens(engine.submit(asked)) for asked in questions]  # with everything cached
    audit(engine)
    expected = [generate(loaded, asked) for asked in questions]
    assert said == expected
    assert again == expected


def test_a_cache_too_small_for_all_changes_nothing(loaded: Any) -> None:
    questions = [question(loaded, [1, word, SLOT, 9], IMAGES[2:], max_new_tokens=40) for word in range(10, 16)]
    of_position = 2 * 2 * 2 * 12 * 4  # keys and values, layers, kv heads, head size, bytes
    room = 2 * (questions[0].prompt.num_positions + 20)
    with Engine(loaded, memory_bytes=room * of_position, block_tokens=4) as engine:
        streams = [engine.submit(asked) for asked in questions]
        said = [tokens(stream) for stream in streams]
    audit(engine)
    assert said == [generate(loaded, asked) for asked in questions]
    assert engine.stats().num_preemptions > 0


def test_the_same_image_again_is_not_encoded_again(
    engine: Engine, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_tiles = []
    encode = loaded.model.encode_images
    monkeypatch.setattr(loaded.model, "encode_images", lambda tiles: num_tiles.append(len(tiles)) or encode(tiles))
    first = question(loaded, [1, 5, SLOT, 9, 20, 21], IMAGES[:1])
    engine.submit(first).wait()
    _, result = engine.submit(question(loaded, [1, 5, SLOT, 9, 22, 23, 24], IMAGES[:1])).wait()
    assert sum(num_tiles) == first.plans[0].num_tiles
    assert result.prompt_tokens - result.cached_tokens == 3
    # The image at another position: its features are cached, but its keys and values are not.
    _, result = engine.submit(question(loaded, [1, SLOT, 9], IMAGES[:1])).wait()
    assert sum(num_tiles) == first.plans[0].num_tiles
    assert result.cached_tokens == 1


def test_text_is_streamed_in_pieces_and_ends_at_a_stop_text(engine: Engine, loaded: Any) -> None:
    asked = question(loaded, [1, 5, 6, 7], max_new_tokens=20)
    pieces = list(engine.submit(asked))
    text = "".join(piece.text for piece in pieces)
    ids = generate(loaded, asked)
    assert text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    assert sum(bool(piece.text) for piece in pieces) > 3
    assert pieces[-1].result is not None
    assert pieces[-1].result.reason == "length"
    middle = text[len(text) // 2 : len(text) // 2 + 3]
    stopped, result = engine.submit(question(loaded, [1, 5, 6, 7], max_new_tokens=20, stop=(middle,))).wait()
    assert stopped == text[: text.index(middle)]
    assert result.reason == "stop"
    by_id = Question(asked.prompt, sampling=asked.sampling, stop_ids=[ids[4]])
    ended, result = engine.submit(by_id).wait()
    assert result.new_tokens == ids.index(ids[4]) + 1
    assert ended == loaded.tokenizer.decode(ids[: ids.index(ids[4])], skip_special_tokens=True)


def test_an_image_is_never_planned_again(engine: Engine, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(loaded, [1, SLOT, 7, SLOT, 8], IMAGES[:2])
    expected = generate(loaded, asked)
    monkeypatch.setattr(geometry, "TilePlan", None)
    assert tokens(engine.submit(asked)) == expected


def test_log_probabilities_are_the_ones_of_the_model(engine: Engine, loaded: Any) -> None:
    asked = question(loaded, [1, 5, SLOT, 7], IMAGES[:1], logprobs=3, max_new_tokens=4)
    choices = [choice for piece in engine.submit(asked) for choice in piece.tokens]
    ids = [choice.token for choice in choices]
    pixels = [make_pixels(IMAGES[0].image, plan_tiles(IMAGES[0].size, loaded.spec.tiling), loaded.image_processor)]
    with torch.no_grad():
        logits = loaded.model(
            torch.tensor([[*asked.prompt.input_ids, *ids]]), images=pixels, image_sizes=[tuple(IMAGES[0].size)]
        ).logits[0, -5:-1]
    expected = logits.log_softmax(-1)
    for choice, row in zip(choices, expected, strict=True):
        assert choice.logprob == pytest.approx(float(row[choice.token]), abs=1e-4)
        assert [token for token, _ in choice.top] == row.topk(3).indices.tolist()


def test_equal_seeds_give_equal_answers(engine: Engine, loaded: Any) -> None:
    def ask(seed: int) -> list[int]:
        return tokens(engine.submit(question(loaded, [1, 5, 6], temperature=3.0, seed=seed, max_new_tokens=10)))

    alone = ask(1)
    crowd = [engine.submit(asked) for asked in mixed_questions(loaded, 9, 5)]
    assert ask(1) == alone
    assert ask(2) != alone
    for stream in crowd:
        stream.wait()


def test_an_answer_can_be_cancelled_in_every_state(engine: Engine, loaded: Any) -> None:
    gate = threading.Event()
    started = threading.Event()

    def hold(piece: Piece) -> None:
        started.set()
        gate.wait(PATIENCE_S)

    running = engine.submit(question(loaded, [1, 5], max_new_tokens=500), on_piece=hold)
    assert started.wait(PATIENCE_S)
    waiting = engine.submit(question(loaded, [1, SLOT, 6], IMAGES[:1], max_new_tokens=500))
    waiting.cancel()
    running.cancel()
    gate.set()
    text, result = waiting.wait()
    assert (text, result.reason, result.new_tokens) == ("", "cancelled", 0)
    answered = engine.submit(question(loaded, [1, 6], max_new_tokens=900))
    for i, _ in enumerate(answered):
        if i == 3:
            answered.cancel()
            answered.cancel()
    assert answered.result is not None
    assert answered.result.reason == "cancelled"
    assert 3 < answered.result.new_tokens < 900
    answered.cancel()  # after its end


def test_one_bad_image_fails_alone(engine: Engine, loaded: Any) -> None:
    bad = draw(7, 60, 40)
    object.__setattr__(bad, "image", "no image at all")
    broken = question(loaded, [1, 5, SLOT, 6], [draw(8, 60, 40)])
    broken = Question(broken.prompt, [bad], broken.plans, broken.sampling)
    good = mixed_questions(loaded, 3, 6)
    streams = [engine.submit(asked) for asked in good[:3]]
    failing = engine.submit(broken)
    streams += [engine.submit(asked) for asked in good[3:]]
    with pytest.raises(AttributeError):
        failing.wait()
    assert failing.result is not None
    assert failing.result.reason == "error"
    assert [tokens(stream) for stream in streams] == [generate(loaded, asked) for asked in good]


def test_nan_logits_fail_their_request_alone(tokenizer: Any) -> None:
    loaded = load(tokenizer)
    with torch.no_grad():
        loaded.model.get_model().embed_tokens.weight[99] = float("nan")
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        good = question(loaded, [1, 5, 6, 7])
        streams = [engine.submit(good), engine.submit(question(loaded, [1, 5, 99])), engine.submit(good)]
        with pytest.raises(Exception, match="nan"):
            streams[1].wait()
        assert tokens(streams[0]) == tokens(streams[2]) == generate(loaded, good)
    audit(engine)


def test_an_image_that_several_ask_about_fails_each_with_the_cause(loaded: Any) -> None:
    asked = [question(loaded, [1, word, SLOT, 6], [draw(7, 60, 40)]) for word in (5, 6, 7)]
    for each in asked:
        object.__setattr__(each.images[0], "image", "no image at all")
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        gate = threading.Event()
        engine.submit(question(loaded, [1, 9], max_new_tokens=1), on_piece=lambda piece: gate.wait(PATIENCE_S) and None)
        streams = [engine.submit(each) for each in asked]
        good = engine.submit(question(loaded, [1, 8, SLOT], IMAGES[:1]))
        gate.set()  # from here on all of them are in one step
        for stream in streams:
            with pytest.raises(AttributeError, match="info"):
                stream.wait()
        assert tokens(good) == generate(loaded, question(loaded, [1, 8, SLOT], IMAGES[:1]))
    audit(engine)


def test_an_error_in_sampling_or_delivery_ends_that_answer_alone(
    engine: Engine, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        def decode(self, ids: list[int], **settings: Any) -> str:
            raise IndexError("there is no such token")

    ended = threading.Event()

    def refuse(piece: Piece) -> None:
        if piece.result is not None:
            ended.set()
        raise ValueError("nobody listens")

    asked = question(loaded, [1, 5, 6], max_new_tokens=40)
    streams = [engine.submit(asked)]
    deaf = engine.submit(question(loaded, [1, 5, 6, 7]), on_piece=refuse)
    with monkeypatch.context() as changed:
        changed.setattr(loaded, "tokenizer", Forgetful())
        unspoken = engine.submit(asked)
    with monkeypatch.context() as changed:
        changed.setattr("llava.engine.sampler.Sampler.prepare", lambda self, logits: 1 / 0)
        unchosen = engine.submit(question(loaded, [1, 5], presence_penalty=1.0))
        with pytest.raises(ZeroDivisionError):
            unchosen.wait()
    streams.append(engine.submit(asked))
    assert [tokens(stream) for stream in streams] == 2 * [generate(loaded, asked)]
    with pytest.raises(IndexError, match="no such token"):
        unspoken.wait()
    assert ended.wait(PATIENCE_S)
    assert deaf.result is not None
    assert isinstance(deaf.result.error, ValueError)


def test_weights_that_change_during_answers_leave_no_stale_cache(tokenizer: Any) -> None:
    loaded = load(tokenizer)
    asked = question(loaded, [1, *range(5, 14), SLOT, 20], IMAGES[:1])
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        started, gate = threading.Event(), threading.Event()

        def hold(piece: Piece) -> None:
            started.set()
            gate.wait(PATIENCE_S)

        running = engine.submit(question(loaded, [1, *range(5, 14), SLOT, 21], IMAGES[:1]), on_piece=hold)
        assert started.wait(PATIENCE_S)
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                parameter.mul_(1.3)
        stream = engine.submit(asked)
        gate.set()
        assert tokens(stream) == generate(loaded, asked)
        running.cancel()
    audit(engine)


def test_a_model_may_come_from_inference_mode_or_change_its_dtype(tokenizer: Any) -> None:
    with torch.inference_mode():
        made_there = load(tokenizer)
    changing = load(tokenizer)
    asked = question(changing, [1, 5, 6, SLOT, 7], IMAGES[:1])
    expected = generate(changing, asked)
    with Engine(made_there, memory_bytes=2**20) as engine:
        assert tokens(engine.submit(asked)) == expected
    with Engine(changing, memory_bytes=2**20) as engine:
        assert tokens(engine.submit(asked)) == expected
        changing.model.to(torch.float64)
        assert tokens(engine.submit(asked)) == expected
        assert engine._runner.cache.keys[0].dtype == torch.float64
    audit(engine)


def test_a_request_that_can_never_run_is_refused_at_once(engine: Engine, loaded: Any) -> None:
    with pytest.raises(RequestTooLarge, match=f"holds {engine.cache_tokens}"):
        engine.submit(question(loaded, [1, 5], max_new_tokens=engine.cache_tokens + 1))
    with pytest.raises(UsageError, match="1 image slots, but 0 images"):
        engine.submit(Question(Prompt((1, SLOT), None, 2)))
    with pytest.raises(UsageError, match="beam search"):
        engine.submit(question(loaded, [1, 5], num_beams=2))
    with pytest.raises(UsageError, match="one block of 4 positions"):
        Engine(loaded, memory_bytes=100, block_tokens=4)
    with pytest.raises(UsageError, match=f"gets {2**62} bytes, but cpu has [0-9]+ in all"):
        Engine(loaded, memory_bytes=2**62)
    for nothing in ({"max_running": 0}, {"max_waiting": -1}, {"block_tokens": 0}):
        with pytest.raises(UsageError, match="has to be at least"):
            Engine(loaded, memory_bytes=2**20, **nothing)


def test_settings_out_of_range_are_refused_and_named(loaded: Any) -> None:
    for settings in ({"stall_s": -1.0}, {"stall_s": float("nan")}, {"max_step_positions": 0}, {"arithmetic": "fp4"}):
        (name,) = settings
        with pytest.raises(UsageError, match=f"{name} is .*; it has to be"):
            Engine(loaded, **settings)


def test_a_full_queue_refuses_and_a_client_that_never_reads_blocks_nothing(loaded: Any) -> None:
    with Engine(loaded, memory_bytes=2**20, max_running=1, max_waiting=2) as engine:
        gate = threading.Event()
        engine.submit(question(loaded, [1, 5]), on_piece=lambda piece: gate.wait(PATIENCE_S) and None)
        unread = [engine.submit(question(loaded, [1, 5, 6], max_new_tokens=50)) for _ in range(2)]
        with pytest.raises(EngineFull, match="3 questions"):
            engine.submit(question(loaded, [1, 5]))
        gate.set()
        while engine.stats().num_finished < 3:
            time.sleep(0.001)
        assert tokens(engine.submit(question(loaded, [1, 7]))) == generate(loaded, question(loaded, [1, 7]))
        assert all(stream.result is None for stream in unread)
    audit(engine)


def test_a_closed_engine_cancels_its_requests_and_says_that_it_is_closed(loaded: Any) -> None:
    engine = Engine(loaded, memory_bytes=2**20)
    stream = engine.submit(question(loaded, [1, 5], max_new_tokens=900))
    engine.close()
    assert stream.wait()[1].reason == "cancelled"
    with pytest.raises(EngineClosed):
        engine.submit(question(loaded, [1, 5]))
    engine.close()
    Engine(loaded, memory_bytes=2**20).close()


UNFINISHED = """
from tests.engine.test_engine import Engine, load, question, words_and_letters

loaded = load(words_and_letters("the cat sat on a red mat and saw me"))
engine = Engine(loaded, memory_bytes=2**22)
streams = [engine.submit(question(loaded, [1, 5, word], max_new_tokens=900)) for word in range(10, 40)]
print(next(iter(streams[0])).result)
"""


def test_a_process_can_exit_while_its_engine_answers() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", UNFINISHED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_an_idle_engine_ends_its_thread(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.engine.engine.IDLE_S", 0.01)
    with Engine(loaded, memory_bytes=2**20) as engine:
        asked = question(loaded, [1, 5])
        before = set(threading.enumerate())
        first = engine.submit(asked).wait()[0]
        for thread in set(threading.enumerate()) - before:  # or it has ended by now
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert engine._thread is None
        assert engine.submit(asked).wait()[0] == first


def test_other_code_can_run_the_model_at_the_same_time(engine: Engine, loaded: Any) -> None:
    usual = loaded.model.config._attn_implementation
    asked = mixed_questions(loaded, 11, 6)
    expected = [generate(loaded, each) for each in asked]
    streams = [engine.submit(each) for each in asked]
    assert [generate(loaded, each) for each in asked] == expected
    assert [tokens(stream) for stream in streams] == expected
    assert loaded.model.config._attn_implementation == usual


def test_a_cached_prefix_with_nan_is_evicted(engine: Engine, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question(loaded, [1, 5, SLOT, 7, 9, 11], IMAGES[2:])
    embed = engine._runner._embed
    monkeypatch.setattr(engine._runner, "_embed", lambda *where: embed(*where) * float("nan"))
    with pytest.raises(BadLogits, match="nan"):
        engine.submit(asked).wait()
    monkeypatch.undo()
    assert tokens(engine.submit(asked)) == generate(loaded, asked)
    audit(engine)


def test_engines_of_one_model_switch_its_attention_until_the_last_is_done(loaded: Any) -> None:
    config = loaded.model.config
    usual = config._attn_implementation
    first, second = paged.attention_in_blocks(config), paged.attention_in_blocks(config)
    for switch, enter in ((first, True), (second, True), (first, False), (second, False)):
        switch.__enter__() if enter else switch.__exit__(None, None, None)
        assert config._attn_implementation == (usual if (switch, enter) == (second, False) else paged.ATTENTION)


def test_two_engines_of_one_model_do_not_disturb_each_other(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.native.library.load", lambda: None)  # torch's way, which switches
    asked = mixed_questions(loaded, 12, 8)
    expected = [generate(loaded, each) for each in asked]
    with Engine(loaded, memory_bytes=2**20) as one, Engine(loaded, memory_bytes=2**20) as other:
        streams = [engine.submit(each) for each in asked for engine in (one, other)]
        said = [tokens(stream) for stream in streams]
    assert said == [each for each in expected for _ in range(2)]


def test_a_decoder_whose_rope_depends_on_the_batch_is_refused(tokenizer: Any) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    loaded = load(tokenizer, rope_parameters=rope)
    with pytest.raises(UsageError, match="dynamic"):
        Engine(loaded, memory_bytes=2**20)
