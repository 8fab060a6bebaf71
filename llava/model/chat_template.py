"""A conversation template as a Jinja chat template for Transformers.

It renders what ``Conversation.get_prompt`` returns for the same turns, character by character. A message's content is a
string, or a list of parts as processors accept it, whose images come before the text, on a line each, as in LLaVA's
training. A first message with the role ``system`` replaces the template's own system text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from llava.conversation import Conversation
from llava.separators import SeparatorStyle

_TEMPLATE = """\
{%- macro say(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content if part['type'] == 'image' -%}{{- IMAGE -}}{%- endfor -%}
{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set system = SYSTEM -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set system = BEFORE_SYSTEMsay(messages[0]['content']) -%}
{%- set turns = messages[1:] -%}
{%- endif -%}
OPENING
{%- for turn in turns -%}
{%- if turn['role'] == 'user' -%}{{- BEFORE_USER -}}
{{- say(turn['content'])TRIM -}}{{- AFTER_USER -}}
{%- elif turn['role'] == 'assistant' -%}{{- BEFORE_ANSWER -}}
{{- say(turn['content'])TRIM -}}{{- AFTER_ANSWER -}}
{%- else -%}{{- raise_exception('There is no role ' + turn['role'] + ' here: user and assistant take turns.') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- LAST -}}{%- endif -%}
"""


@dataclass(frozen=True)
class _Marks:
    """The texts around a conversation's messages; ``opening`` is a Jinja statement, the others are plain text."""

    opening: str
    before_user: str
    after_user: str
    before_answer: str
    after_answer: str
    last: str
    before_first_user: str | None = None


def write_chat_template(conversation: Conversation, image_slot: str) -> str | None:
    """The Jinja template, or None for a style that is not a chat (PLAIN).

    Args:
        conversation: a template, whose ``messages`` are its examples only.
        image_slot: the text of an image: ``<image>``, or that with marks around it.
    """
    marks = _find_marks(conversation)
    if marks is None:
        return None
    begin = re.match(r"<\|[^\n]*\n", conversation.system)
    texts = {
        "IMAGE": image_slot + "\n",
        "SYSTEM": conversation.system,
        "BEFORE_USER": marks.before_user,
        "AFTER_USER": marks.after_user,
        "BEFORE_ANSWER": marks.before_answer,
        "AFTER_ANSWER": marks.after_answer,
        "LAST": marks.last,
    }
    pieces = {name: json.dumps(text) for name, text in texts.items()}
    if marks.before_first_user is not None:
        pieces["BEFORE_USER"] = f"{json.dumps(marks.before_first_user)} if loop.first else {pieces['BEFORE_USER']}"
    pieces["BEFORE_SYSTEM"] = f"{json.dumps(begin[0])} + " if begin else ""
    pieces["OPENING"] = marks.opening
    pieces["TRIM"] = " | trim" if conversation.sep_style is SeparatorStyle.LLAMA_3 else ""
    longest_first = sorted(pieces, key=len, reverse=True)
    return re.sub("|".join(longest_first), lambda found: pieces[found[0]], _TEMPLATE)


def _find_marks(conversation: Conversation) -> _Marks | None:
    style, sep, sep2 = conversation.sep_style, conversation.sep, conversation.sep2 or ""
    user, answer = conversation.roles[0], conversation.roles[1]
    examples = conversation.get_prompt() if conversation.messages else ""
    if style in (SeparatorStyle.SINGLE, SeparatorStyle.TWO):
        closing = sep2 if style is SeparatorStyle.TWO else sep
        opening = _say(f"system + {json.dumps(sep + examples.removeprefix(conversation.system + sep))}")
        return _Marks(opening, f"{user}: ", sep, f"{answer}: ", closing, f"{answer}:")
    if style is SeparatorStyle.MPT:
        return _Marks(_say(f"system + {json.dumps(sep)}"), user, sep, answer, sep, answer)
    if style is SeparatorStyle.GEMMA:
        return _Marks("", user, sep, answer, sep, answer)
    if style is SeparatorStyle.CHATML:
        closing = f"{sep}\n"
        opening = _say(f"system + {json.dumps(closing)} if system else ''")
        return _Marks(opening, f"{user}\n", closing, f"{answer}\n", closing, f"{answer}\n")
    if style is SeparatorStyle.LLAMA_2:
        opening = _say('"[INST] " + ("<<SYS>>\\n" + system + "\\n<</SYS>>\\n\\n" if system else "")')
        return _Marks(opening, f"{sep}[INST] ", " [/INST]", " ", f" {sep2}", "", before_first_user="")
    if style is SeparatorStyle.LLAMA_3:
        header = "<|start_header_id|>{}<|end_header_id|>\n\n"
        opening = _say(f'{json.dumps("<|begin_of_text|>" + header.format("system"))} + (system | trim) + "<|eot_id|>"')
        before = header.format(answer)
        return _Marks(opening, header.format(user), "<|eot_id|>", before, "<|eot_id|>", before)
    return None


def _say(expression: str) -> str:
    return "{{- " + expression + " -}}"
