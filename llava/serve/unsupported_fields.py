"""Rejects request fields that would change the answer but are not supported, unless their value is a no-op."""

from __future__ import annotations

from typing import Any

from llava.serve.api_errors import ApiError

_UNSUPPORTED = {
    "add_generation_prompt": "The server always generates an answer: leave it out.",
    "allowed_token_ids": "Individual tokens cannot be allowed or barred.",
    "audio": "Answers are text.",
    "background": "The server stores nothing, so an answer cannot be fetched later.",
    "chat_template": "The server uses the checkpoint's own template.",
    "chat_template_kwargs": "The server uses the checkpoint's own template.",
    "continue_final_message": "The server does not continue a partial answer: end with a user's message.",
    "function_call": "The model calls no functions.",
    "functions": "The model calls no functions.",
    "ebnf": "Answers are constrained by response_format alone.",
    "grammar": "Answers are constrained by response_format alone.",
    "guided_choice": "Answers are constrained by response_format alone.",
    "guided_grammar": "Answers are constrained by response_format alone.",
    "guided_json": "Answers are constrained by response_format alone.",
    "guided_regex": "Answers are constrained by response_format alone.",
    "include_stop_str_in_output": "An answer ends before its stop text.",
    "ignore_eos": "An answer ends at the model's end token.",
    "logit_bias": "Individual tokens cannot be biased.",
    "mm_processor_kwargs": "The checkpoint's config says how images are preprocessed.",
    "modalities": "Answers are text.",
    "prompt_embeds": "The server does not accept embeddings.",
    "prompt_logprobs": "Only the tokens of answers have log-probabilities.",
    "regex": "Answers are constrained by response_format alone.",
    "stop_token_ids": "Send stop texts as stop.",
    "structured_outputs": "Answers are constrained by response_format alone.",
    "tool_choice": "The model calls no tools: for structured output send response_format.",
    "tools": 'The model calls no tools: leave them out, or send "tool_choice": "none".',
    "truncate_prompt_tokens": "The server never truncates a prompt: shorten it.",
    "use_beam_search": "Answers are sampled token by token.",
    "web_search_options": "The model does not search the web.",
}
# Values that ask for nothing, or for the default behaviour.
_NO_OP_VALUES: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template_kwargs": ({"enable_thinking": False}, {"thinking": False}),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto", {"type": "none"}, {"type": "auto"}),
}
# Fields that are no-ops while another field disables them.
_DISABLED_BY: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("tool_choice", ("none", {"type": "none"})),
    "functions": ("function_call", ("none",)),
}


# Fields for which even an empty object, false or 0 is a request.
_REQUESTED_BY_ANY_VALUE = ("add_generation_prompt", "prompt_logprobs", "web_search_options")


def _is_no_op(name: str, raw: dict[str, Any]) -> bool:
    value = raw.get(name)
    if value is None or value in _NO_OP_VALUES.get(name, ()):
        return True
    if name in _DISABLED_BY:
        switch, off = _DISABLED_BY[name]
        if raw.get(switch) in off:
            return True
    if name == "logit_bias" and isinstance(value, dict):
        return all(bias == 0 for bias in value.values())
    if isinstance(value, dict) and name not in _REQUESTED_BY_ANY_VALUE:
        return all(one is None for one in value.values())
    return name not in _REQUESTED_BY_ANY_VALUE and value in ([], "", False)


def check_supported_fields(raw: dict[str, Any]) -> None:
    """Raises ApiError (400) for a field that asks for something unsupported."""
    for name, why in _UNSUPPORTED.items():
        if not _is_no_op(name, raw):
            raise ApiError(400, f"{name} is not supported. {why}", param=name, code="unsupported_parameter")
