"""bad_words, min_tokens and no_repeat_ngram_size, and which engines get them."""

from __future__ import annotations

from typing import Any

import pytest

from llava.backends.protocol import ChatRequest
from llava.backends.remote import Remote
from llava.errors import UsageError
from llava.sampling import Sampling
from llava.serve.api_errors import ApiError
from llava.serve.limits import Limits
from llava.serve.schemas import ChatBody, check, read_sampling

LIMITS = Limits()


def read(**fields: Any) -> Sampling:
    body = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 20, **fields}
    return read_sampling(check(ChatBody, body), LIMITS)


def test_a_request_bars_words_runs_and_early_ends() -> None:
    sampling = read(bad_words=["red", " blue"], min_tokens=3, no_repeat_ngram_size=2)
    assert (sampling.bad_words, sampling.min_new_tokens, sampling.no_repeat_ngram_size) == (("red", " blue"), 3, 2)
    assert read() == Sampling(max_new_tokens=20)
    assert read(bad_words=None, min_tokens=None) == read()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": "red"}, "bad_words"),
        ({"bad_words": [5]}, "bad_words.0"),
        ({"bad_words": ["a"] * (LIMITS.stop_texts + 1)}, "bad_words"),
        ({"bad_words": ["a" * (LIMITS.stop_characters + 1)]}, "bad_words"),
        ({"bad_words": ["a\0"]}, "bad_words"),
        ({"stop": ["\0"]}, "stop"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 30}, "min_tokens"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size"),
    ],
)
def test_what_cannot_be_barred_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_engine_of_others_is_told_or_the_request_refused() -> None:
    remote = Remote("http://127.0.0.1:9/v1", model_id="m", context_tokens=100)
    sampling = Sampling(bad_words=("red",), min_new_tokens=2, suppress_tokens=(7,))
    told = remote.write_sampling(ChatRequest(sampling=sampling), is_chat=True)
    assert (told["bad_words"], told["min_tokens"], told["logit_bias"]) == (["red"], 2, {"7": -100})
    plain = remote.write_sampling(ChatRequest(), is_chat=True)
    assert not {"bad_words", "min_tokens", "logit_bias"} & set(plain)
    with pytest.raises(UsageError, match="no_repeat_ngram_size is not supported by this engine"):
        remote.write_sampling(ChatRequest(sampling=Sampling(no_repeat_ngram_size=3)), is_chat=True)
