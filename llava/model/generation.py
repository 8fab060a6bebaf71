"""The fields of generation_config.json: which of them the engine and ``generate`` apply, and a notice about the rest.

The engine and ``generate`` give the same answer for every field. Fields for which the engine has no faster code go
through Transformers' own logits processors, which see only the answer's tokens, as in ``generate`` with embeddings.
A field that neither applies is reported, never ignored in silence.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    InfNanRemoveLogitsProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from llava.errors import CheckpointError, UsageError
from llava.sampling import Sampling


class How(Enum):
    """What applies a field of ``GenerationConfig``."""

    ENGINE = "the engine's own code"
    PROCESSOR = "Transformers' logits processor, in the engine too"
    BEAMS = "generate, in beam search only"
    CALLER = "nothing: the caller sets it, in a Sampling or by a flag"
    NOBODY = "nothing"
    NOTHING = "nothing has to: no answer depends on it"


# Each field with its neutral value, beside None, False and empty lists.
# Source: transformers 5.23 generation/configuration_utils.py and generation/utils.py.
FIELDS: dict[str, tuple[How, Any]] = {
    "eos_token_id": (How.ENGINE, None),
    "max_time": (How.ENGINE, None),
    "repetition_penalty": (How.ENGINE, 1.0),
    "stop_strings": (How.ENGINE, None),
    "bad_words_ids": (How.PROCESSOR, None),
    "begin_suppress_tokens": (How.PROCESSOR, None),
    "epsilon_cutoff": (How.PROCESSOR, 0.0),
    "eta_cutoff": (How.PROCESSOR, 0.0),
    "exponential_decay_length_penalty": (How.PROCESSOR, None),
    "forced_bos_token_id": (How.PROCESSOR, None),
    "forced_eos_token_id": (How.PROCESSOR, None),
    "min_length": (How.PROCESSOR, 0),
    "min_new_tokens": (How.PROCESSOR, 0),
    "no_repeat_ngram_size": (How.PROCESSOR, 0),
    "remove_invalid_values": (How.PROCESSOR, None),
    "renormalize_logits": (How.PROCESSOR, None),
    "sequence_bias": (How.PROCESSOR, None),
    "suppress_tokens": (How.PROCESSOR, None),
    "top_h": (How.PROCESSOR, None),
    "typical_p": (How.PROCESSOR, 1.0),
    "watermarking_config": (How.PROCESSOR, None),
    "early_stopping": (How.BEAMS, None),
    "length_penalty": (How.BEAMS, 1.0),
    "do_sample": (How.CALLER, None),
    "max_length": (How.CALLER, 20),
    "max_new_tokens": (How.CALLER, None),
    "min_p": (How.CALLER, None),
    "num_beams": (How.CALLER, 1),
    "temperature": (How.CALLER, 1.0),
    "top_k": (How.CALLER, 50),
    "top_p": (How.CALLER, 1.0),
    "assistant_early_exit": (How.NOBODY, None),
    "cache_config": (How.NOBODY, None),
    "cache_implementation": (How.NOBODY, None),
    "compile_config": (How.NOBODY, None),
    "constraints": (How.NOBODY, None),
    "continuous_batching_config": (How.NOBODY, None),
    "diversity_penalty": (How.NOBODY, 0.0),
    "dola_layers": (How.NOBODY, None),
    "encoder_no_repeat_ngram_size": (How.NOBODY, 0),
    "encoder_repetition_penalty": (How.NOBODY, 1.0),
    "force_words_ids": (How.NOBODY, None),
    "guidance_scale": (How.NOBODY, 1.0),
    "is_assistant": (How.NOBODY, None),
    "low_memory": (How.NOBODY, None),
    "max_cache_len": (How.NOBODY, None),
    "num_beam_groups": (How.NOBODY, 1),
    "num_return_sequences": (How.NOBODY, 1),
    "output_attentions": (How.NOBODY, None),
    "output_hidden_states": (How.NOBODY, None),
    "output_logits": (How.NOBODY, None),
    "output_scores": (How.NOBODY, None),
    "penalty_alpha": (How.NOBODY, 0.0),
    "prefill_chunk_size": (How.NOBODY, None),
    "prompt_lookup_num_tokens": (How.NOBODY, None),
    "return_dict_in_generate": (How.NOBODY, None),
    "token_healing": (How.NOBODY, None),
    "use_mtp": (How.NOBODY, None),
    # The remaining fields of assisted generation, which is not supported.
    "assistant_confidence_threshold": (How.NOBODY, 0.4),
    "assistant_ensemble_weight": (How.NOBODY, None),
    "assistant_lookbehind": (How.NOBODY, 10),
    "max_matching_ngram_size": (How.NOBODY, None),
    "num_assistant_tokens": (How.NOBODY, 20),
    "num_assistant_tokens_schedule": (How.NOBODY, "constant"),
    "speculation_type": (How.NOBODY, None),
    "target_lookbehind": (How.NOBODY, 10),
    "_from_model_config": (How.NOTHING, None),
    "bos_token_id": (How.NOTHING, None),  # for empty prompts, which do not occur
    "decoder_start_token_id": (How.NOTHING, None),
    "disable_compile": (How.NOTHING, None),
    "pad_token_id": (How.NOTHING, None),
    "transformers_version": (How.NOTHING, None),
    "use_cache": (How.NOTHING, True),
}
# Applied only when sampling. Without ``do_sample`` Transformers warns about them and refuses to save them.
WARPERS = ("top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
SAMPLING_ONLY = ("temperature", "top_p", "top_k", "min_p", *WARPERS)
BEAMS_ONLY = ("early_stopping", "length_penalty")
_NEVER_READ = ("max_length", "transformers_version", "trust_remote_code", "custom_generate")


def is_set(name: str, value: Any) -> bool:
    """Whether the value of a field is not its neutral one."""
    neutral = FIELDS[name][1] if name in FIELDS else None
    is_empty = value is None or value is False or (isinstance(value, (list, dict, str, tuple)) and not value)
    return not is_empty and value != neutral


def read_generation_config(values: Mapping[str, Any], source: object, model: Any) -> GenerationConfig:
    """The settings in ``values`` of the file ``source``, in a form about which Transformers does not warn.

    Sampling values without ``do_sample`` have no effect and are dropped, except those that ``Sampling`` lacks, which
    apply as soon as an answer is sampled. ``max_length`` is dropped as well: it includes the prompt, and every
    ``max_new_tokens`` overrides it.

    Raises:
        CheckpointError: it names the file, the field and its value.
    """
    for name, value in values.items():
        reason = None if value is None or name not in _RULES else _RULES[name](value)
        if reason is not None:
            raise CheckpointError(f"{source}: {name} is {_shorten(value)}; it has to be {reason}.")
    try:
        config = clean_generation_config(values)
    except Exception as error:  # Transformers raises any type for a value of the wrong type
        culprit = next((name for name, value in values.items() if _find_error({name: value})), None)
        shown = "" if culprit is None else f"{culprit} is {_shorten(values[culprit])}: "
        raise CheckpointError(f"{source} cannot be used: {shown}{_first_line(error)}") from error
    for name, (how, _) in FIELDS.items():
        if how is How.PROCESSOR and is_set(name, getattr(config, name)):
            try:
                _try_out(model, name, getattr(config, name))
            except Exception as error:  # each processor raises other types
                shown = f"{name} is {_shorten(values.get(name))}: {_first_line(error)}"
                raise CheckpointError(f"{source} cannot be used: {shown}") from error
    return config


def _find_error(values: Mapping[str, Any]) -> Exception | None:
    try:
        clean_generation_config(values)
    except Exception as error:
        return error
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def clean_generation_config(values: Mapping[str, Any]) -> GenerationConfig:
    """``values`` without those that have no effect or that Transformers refuses to save; see above."""
    dropped = set(_NEVER_READ)
    if values.get("do_sample") is not True:
        dropped |= set(SAMPLING_ONLY)
    if values.get("num_beams") in (None, 1):
        dropped |= set(BEAMS_ONLY)
    refused = dict(values.get("_refused") or {})
    kept = {key: value for key, value in values.items() if key not in dropped and not key.startswith("_")} | refused
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about fields that nothing applies
        try:
            config = GenerationConfig(**kept)
        except (ValueError, TypeError, AttributeError):
            # Fields that nothing applies may be invalid. They are set aside, because generate would check them.
            refused = {key: value for key, value in kept.items() if FIELDS.get(key, (None,))[0] is How.NOBODY}
            config = GenerationConfig(**{key: value for key, value in kept.items() if key not in refused})
            config._refused = refused
    if isinstance(config.repetition_penalty, int):  # its processor accepts only a float
        config.repetition_penalty = float(config.repetition_penalty)
    for name in (*WARPERS, *BEAMS_ONLY):  # bypasses the check that warns about them
        if is_set(name, values.get(name)):
            setattr(config, name, values[name])
    return config


def describe_unfollowed(config: GenerationConfig, followed: Collection[str] | None = None) -> str | None:
    """A sentence that lists each setting that is not followed, with its value; None if there is none.

    ``followed``: the fields that the engine in use applies; by default those of this package's engine and ``generate``.
    """
    if followed is None:
        followed = [name for name, (how, _) in FIELDS.items() if how in (How.ENGINE, How.PROCESSOR)]
    said = {**vars(config), **getattr(config, "_refused", {})}
    values = {name: value for name, value in said.items() if is_set(name, value)}
    callers = ["num_beams", "max_new_tokens"]
    if values.get("do_sample") is True:
        callers += ["do_sample", "temperature", "top_p", "top_k", "min_p"]
    told = (How.NOBODY, How.ENGINE, How.PROCESSOR)
    others = [name for name in values if name in FIELDS and FIELDS[name][0] in told and name not in followed]
    unknown = [name for name in values if name not in FIELDS and not name.startswith("_")]
    parts = [
        f"{_list(names, values)} {'is' if len(names) == 1 else 'are'} {what}"
        for names, what in (
            (others, "not followed"),
            (unknown, "unknown"),
            ([name for name in callers if name in values], "left to the caller (greedy unless asked)"),
        )
        if names
    ]
    return f"Of the checkpoint's generation settings {'; '.join(parts)}." if parts else None


def _list(names: Sequence[str], values: Mapping[str, Any]) -> str:
    written = [f"{name}={_shorten(values[name])}" for name in sorted(names)]
    return " and ".join([", ".join(written[:-1]), written[-1]] if len(written) > 1 else written)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def find_stop_strings(config: GenerationConfig) -> list[str]:
    """The strings that end an answer."""
    said = config.stop_strings or []
    return [said] if isinstance(said, str) else list(said)


def find_settings(model: Any, sampling: Sampling, tokenizer: Any) -> dict[str, Any]:
    """The fields that processors apply to one answer: the checkpoint's, overridden by ``sampling``'s.

    Raises UsageError for a token id that the model does not have.
    """
    config, num_tokens = model.generation_config, model.config.vocab_size
    values = {
        name: value
        for name, (how, _) in FIELDS.items()
        if how is How.PROCESSOR and is_set(name, value := getattr(config, name, None))
    }
    for name in ("no_repeat_ngram_size", "min_new_tokens"):
        if (number := getattr(sampling, name)) is not None:
            values.pop(name, None)
            values.update({name: number} if number else {})
    if sampling.min_new_tokens is not None:
        values.pop("min_length", None)
    if sampling.bad_words:
        values["bad_words_ids"] = [
            *(values.get("bad_words_ids") or ()),
            *spell_bad_words(sampling.bad_words, tokenizer),
        ]
    if sampling.suppress_tokens:
        if max(sampling.suppress_tokens) >= num_tokens:
            raise UsageError(
                f"suppress_tokens holds {max(sampling.suppress_tokens)}, but the model has only {num_tokens} tokens."
            )
        values["suppress_tokens"] = sorted({*(values.get("suppress_tokens") or ()), *sampling.suppress_tokens})
    if sampling.temperature == 0:
        values = {name: value for name, value in values.items() if name not in WARPERS}
    return values


def write_for_generate(config: GenerationConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which ``generate`` of a model with ``config`` does what the engine does with ``values``."""
    arguments: dict[str, Any] = {}
    for name, (how, _) in FIELDS.items():
        is_said = getattr(config, name, None) is not None
        if how is How.PROCESSOR and (is_said or name in values):
            arguments[name] = values.get(name, _OFF.get(name))
        elif is_said and (how is How.NOBODY or name == "stop_strings"):
            arguments[name] = _OFF.get(name)
    return arguments


# The fields for which ``generate`` does not take None as off.
_OFF: dict[str, Any] = {
    "min_length": 0,
    "num_return_sequences": 1,
    "output_scores": False,
    "return_dict_in_generate": False,
    "assistant_confidence_threshold": 0.4,
}


def spell_bad_words(words: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The token ids of words that an answer may not contain: at the start of a text, after a space, after a newline."""
    spelled: list[list[int]] = []
    anchor = list(tokenizer("\n", add_special_tokens=False).input_ids)
    for word in words:
        bare = word.strip() or word
        after = list(tokenizer("\n" + bare, add_special_tokens=False).input_ids)
        ways = [tokenizer(text, add_special_tokens=False).input_ids for text in (bare, " " + bare)]
        if after[: len(anchor)] == anchor:
            ways.append(after[len(anchor) :])
        spelled += [list(ids) for ids in ways if len(ids) and list(ids) not in spelled]
    return spelled


@dataclass(frozen=True)
class Processors:
    """Transformers' logits processors for one answer: those ``before`` the temperature and those ``after`` it.

    They may be stateful, so each answer has its own.
    """

    before: LogitsProcessorList
    after: LogitsProcessorList

    @property
    def mends_invalid(self) -> bool:
        """Whether NaN and infinite logits are replaced instead of ending the answer."""
        return any(isinstance(one, InfNanRemoveLogitsProcessor) for one in self.before)


def make_processors(
    model: Any, values: Mapping[str, Any], sampling: Sampling, stop_ids: Sequence[int], prompt_tokens: int
) -> Processors | None:
    """The processors that ``generate`` would run for these values beside temperature, top-k and top-p; None if none.

    ``sampling``: its ``max_new_tokens`` is the answer's limit, its ``repetition_penalty`` the one in effect.
    """
    if not values:
        return None
    common = {name: value for name, value in values.items() if name not in (*WARPERS, *_LAST, *_WARNED_OF)}
    if "min_new_tokens" in values:  # without the prompt they are the same, and two processors would do it
        common["min_length"] = common.pop("min_new_tokens")
    elif "min_length" in values:  # it includes the prompt
        common["min_length"] = max(values["min_length"] - prompt_tokens, 0)
    if "forced_eos_token_id" in values:
        common["max_length"] = sampling.max_new_tokens
    before = _build(model, common, stop_ids)
    # These two are made here because Transformers warns that they see only the answer, which is intended.
    penalty, size = sampling.repetition_penalty, values.get("no_repeat_ngram_size")
    last = {name: value for name, value in values.items() if name in (*WARPERS, *_LAST)}
    if not before and not size and not last:
        return None
    warned_of: list[Any] = [RepetitionPenaltyLogitsProcessor(float(penalty))] if penalty not in (None, 1) else []
    warned_of += [NoRepeatNGramLogitsProcessor(size)] if size else []
    place = int("sequence_bias" in values)
    before[place:place] = warned_of
    if sampling.temperature > 0 and last:
        last.update(do_sample=True, top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p or None)
    return Processors(before, _build(model, last, stop_ids))


_LAST = ("watermarking_config", "renormalize_logits")
_WARNED_OF = ("no_repeat_ngram_size",)


def _build(model: Any, values: Mapping[str, Any], stop_ids: Sequence[int]) -> LogitsProcessorList:
    config = GenerationConfig(do_sample=values.get("do_sample"))
    for name, value in values.items():  # bypasses the checks, which were made when the file was read
        setattr(config, name, value)
    config._eos_token_tensor = torch.tensor(list(stop_ids)) if stop_ids else None
    processors = model._get_logits_processor(config, input_ids_seq_length=0, device="cpu")
    return LogitsProcessorList(
        EndsNoSooner(one.min_length, one.eos_token_id) if isinstance(one, MinLengthLogitsProcessor) else one
        for one in processors
    )


class EndsNoSooner(LogitsProcessor):
    """Transformers' ``MinLengthLogitsProcessor``, which looks for the end tokens in the whole vocabulary each time.

    That takes twenty times as long, for the tokens after the shortest answer too.
    """

    def __init__(self, min_length: int, end_ids: torch.Tensor) -> None:
        self._min_length, self._end_ids = min_length, end_ids

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[-1] >= self._min_length:
            return scores
        known = self._end_ids[self._end_ids < scores.shape[-1]]
        return scores.index_fill(-1, known, -math.inf)


def _try_out(model: Any, name: str, value: Any) -> None:
    """Runs a field's processor on made-up logits. Raises what it raises for its value."""
    sampling = Sampling(temperature=1.0, max_new_tokens=2)
    processors = make_processors(model, {name: value}, sampling, [0], 0)
    assert processors is not None
    for num_tokens in (0, 1, 2, 5):
        ids = torch.arange(num_tokens)[None]
        scores = torch.arange(model.config.vocab_size, dtype=torch.float32)[None]
        changed = processors.after(ids, processors.before(ids, scores))
        if changed.isnan().any() or changed.isposinf().any():
            raise ValueError("it turns logits into NaN or infinity")


def _is_whole(value: Any) -> bool:
    """Whether it is an integer that fits a tensor."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _rule(is_right: Callable[[Any], bool], wanted: str) -> Callable[[Any], str | None]:
    return lambda value: None if is_right(value) else wanted


def _is_list(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(is_right, value))


_COUNT = _rule(lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0")
_ABOVE = _rule(lambda value: _is_number(value) and value > 0, "a number above 0")
_NUMBER = _rule(_is_number, "a number")
_SHARE = _rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
_SWITCH = _rule(lambda value: isinstance(value, bool), "true or false")
_TOKEN = _rule(_is_whole, "a token id")
_TOKENS = _rule(lambda value: _is_whole(value) or _is_list(value, _is_whole), "a token id or a list of them")
_LIST = _rule(lambda value: _is_list(value, _is_whole), "a list of token ids")
_TEXTS = _rule(
    lambda value: (
        (isinstance(value, str) and value != "") or _is_list(value, lambda one: isinstance(one, str) and one != "")
    ),
    "a string or a list of strings that are not empty",
)
# What a field's value has to be; the processors themselves find the other faults.
_RULES: dict[str, Callable[[Any], str | None]] = {
    "begin_suppress_tokens": _LIST,
    "bos_token_id": _TOKENS,
    "decoder_start_token_id": _TOKENS,
    "do_sample": _SWITCH,
    "early_stopping": _rule(lambda value: isinstance(value, bool) or value == "never", 'true, false or "never"'),
    "eos_token_id": _TOKENS,
    "epsilon_cutoff": _SHARE,
    "eta_cutoff": _SHARE,
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKENS,
    "length_penalty": _NUMBER,
    "max_time": _ABOVE,
    "min_length": _COUNT,
    "min_new_tokens": _COUNT,
    "min_p": _NUMBER,
    "no_repeat_ngram_size": _COUNT,
    "num_beams": _COUNT,
    "pad_token_id": _TOKEN,
    "remove_invalid_values": _SWITCH,
    "renormalize_logits": _SWITCH,
    "repetition_penalty": _ABOVE,
    "stop_strings": _TEXTS,
    "suppress_tokens": _LIST,
    "temperature": _NUMBER,
    "top_h": _SHARE,
    "top_k": _NUMBER,
    "top_p": _NUMBER,
    "typical_p": _SHARE,
}
