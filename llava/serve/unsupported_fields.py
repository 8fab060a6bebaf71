"""Fields of requests that would change an answer and cannot be honoured: refused, unless they ask for nothing."""

from __future__ import annotations

from typing import Any

from llava.serve.api_errors import ApiError

_REFUSED = {
    "add_generation_prompt": "What is asked for is always an answer: leave it out.",
    "allowed_token_ids": "Single tokens cannot be favoured.",
    "audio": "It does not speak.",
    "background": "Nothing is kept, so an answer cannot be fetched later.",
    "chat_template": "The template is the checkpoint's own.",
    "chat_template_kwargs": "The template is the checkpoint's own.",
    "continue_final_message": "An answer that was begun is not continued: end with a user's message.",
    "function_call": "The model calls no functions.",
    "functions": "The model calls no functions.",
    "ebnf": "Answers are constrained by response_format alone.",
    "grammar": "Answers are constrained by response_format alone.",
    "guided_choice": "Answers are constrained by response_format alone.",
    "guided_grammar": "Answers are constrained by response_format alone.",
    "guided_json": "Answers are constrained by response_format alone.",
    "guided_regex": "Answers are constrained by response_format alone.",
    "include_stop_str_in_output": "An answer ends before its stop text.",
    "ignore_eos": "An answer ends where the model ends it.",
    "logit_bias": "Single tokens cannot be favoured.",
    "mm_processor_kwargs": "Images are prepared as the checkpoint says.",
    "modalities": "Answers are text.",
    "prompt_embeds": "Embeddings are not taken from clients.",
    "prompt_logprobs": "Only tokens of answers have log-probabilities.",
    "regex": "Answers are constrained by response_format alone.",
    "stop_token_ids": "Send stop texts as stop.",
    "structured_outputs": "Answers are constrained by response_format alone.",
    "tool_choice": "The model calls no tools: for an answer in a form, send response_format.",
    "tools": 'The model calls no tools: leave them out, or send "tool_choice": "none".',
    "truncate_prompt_tokens": "A prompt is never cut: shorten it.",
    "use_beam_search": "Answers are drawn token by token.",
    "web_search_options": "The model searches nothing.",
}
# What asks for nothing, or for what is done anyway.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template_kwargs": ({"enable_thinking": False}, {"thinking": False}),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto", {"type": "none"}, {"type": "auto"}),
}
# What asks for nothing while another field says that it is not to be used.
_UNUSED_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("tool_choice", ("none", {"type": "none"})),
    "functions": ("function_call", ("none",)),
}


# What even an empty object, false or 0 asks for.
_ASKED_BY_NOTHING = ("add_generation_prompt", "prompt_logprobs", "web_search_options")


def _asks_for_nothing(name: str, raw: dict[str, Any]) -> bool:
    value = raw.get(name)
    if value is None or value in _HARMLESS.get(name, ()):
        return True
    if name in _UNUSED_WITH:
        switch, off = _UNUSED_WITH[name]
        if raw.get(switch) in off:
            return True
    if name == "logit_bias" and isinstance(value, dict):
        return all(bias == 0 for bias in value.values())
    if isinstance(value, dict) and name not in _ASKED_BY_NOTHING:
        return all(one is None for one in value.values())
    return name not in _ASKED_BY_NOTHING and value in ([], "", False)


def check_supported_fields(raw: dict[str, Any]) -> None:
    """Raises ApiError (400) for a field of the request that asks for what cannot be had."""
    for name, why in _REFUSED.items():
        if not _asks_for_nothing(name, raw):
            raise ApiError(400, f"{name} is not supported. {why}", param=name, code="unsupported_parameter")
