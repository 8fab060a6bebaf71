"""What became of the pictures of a question, as HTML: each one's drawing with its tiles and positions, and the sums."""

from __future__ import annotations

import base64
import html
import io

from llava.backends.protocol import ChatRequest, SentPicture, Usage
from llava.image.geometry import TilePlan, Tiling, plan_images
from llava.image.tokenmap import describe_plan, draw_sheet

EMPTY = """<div class="sees-empty"><p>When you ask about a picture, you see here how the model saw it: the tiles it was
cut into, and which parts became tokens.</p></div>"""


def show_sheets(request: ChatRequest, tiling: Tiling | None) -> str:
    """The pictures of the latest message that has any, each with its drawing.

    ``tiling``: None where the engine does not tell how it cuts pictures; then there are only sizes.
    """
    shown = next((sent for message in reversed(request.messages) if (sent := _pictures(message.parts))), [])
    if not shown:
        return EMPTY
    if tiling is None:
        return "".join(_show_size(sent) for sent in shown)
    plans = plan_images([sent.picture.size for sent in shown], tiling, [sent.detail for sent in shown])
    return "".join(_show_sheet(sent, plan, tiling) for sent, plan in zip(shown, plans, strict=True))


def _pictures(parts: tuple[str | SentPicture, ...]) -> list[SentPicture]:
    return [part for part in parts if isinstance(part, SentPicture)]


def _show_size(sent: SentPicture) -> str:
    name = html.escape(sent.picture.name)
    return f"<figure><figcaption><b>{name}</b><span>{sent.picture.size} px</span></figcaption></figure>"


def _show_sheet(sent: SentPicture, plan: TilePlan, tiling: Tiling) -> str:
    picture = sent.picture
    name = html.escape(picture.name)
    file = io.BytesIO()
    draw_sheet(picture.image, plan, tiling).save(file, "WEBP", quality=88, method=2)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><figcaption><b>{name}</b><span class="tally">{plan.num_positions:,} tokens</span></figcaption>'
        f'<img alt="{name} in tiles" src="data:image/webp;base64,{data}">'
        f"<p>{html.escape(describe_plan(plan, tiling))}</p></figure>"
    )


def show_usage(usage: Usage | None, first_s: float | None) -> str:
    """A line about what a question and its answer took."""
    if usage is None:
        return ""
    facts = [("prompt", usage.prompt_tokens), ("of it pictures", usage.image_tokens)]
    facts += [("known from before", usage.cached_tokens), ("answer", usage.completion_tokens)]
    rows = "".join(f"<dt>{name}</dt><dd>{number:,}</dd>" for name, number in facts)
    if first_s is not None:
        rows += f"<dt>first word after</dt><dd>{first_s:.2f} s</dd>"
    return f'<dl class="usage">{rows}</dl>'
