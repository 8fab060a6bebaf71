"""The token-map panel of the web chat: how the model saw each image of a question, as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable

from PIL import Image

from llava.backends.protocol import ChatRequest, SentImage, Usage
from llava.image.geometry import TilePlan, Tiling, plan_images
from llava.image.source import LoadedImage
from llava.image.tokenmap import describe_plan, draw_legend, draw_panels

EMPTY = """<div class="token-maps-empty"><p>When you ask about an image, this panel shows how the model saw it: the
tiles it was cut into, and which parts became tokens.</p></div>"""


def render_token_maps(
    request: ChatRequest, tiling: Tiling | None, read_out: Callable[[LoadedImage, TilePlan], str] | None = None
) -> str:
    """The token maps of the images in the latest message that has any.

    Args:
        tiling: None if the engine does not report how it cuts images; then only their sizes are shown.
        read_out: what a tower that writes wrote about an image.
    """
    shown = next((sent for message in reversed(request.messages) if (sent := _images(message.parts))), [])
    if not shown:
        return EMPTY
    if tiling is None:
        return "".join(_show_size(sent) for sent in shown)
    plans = plan_images([sent.loaded.size for sent in shown], tiling, [sent.detail for sent in shown])
    words = [read_out(sent.loaded, plan) if read_out else "" for sent, plan in zip(shown, plans, strict=True)]
    return "".join(
        _render_token_map(sent, plan, tiling, said) for sent, plan, said in zip(shown, plans, words, strict=True)
    )


def _images(parts: tuple[str | SentImage, ...]) -> list[SentImage]:
    return [part for part in parts if isinstance(part, SentImage)]


def _show_size(sent: SentImage) -> str:
    name = html.escape(sent.loaded.name)
    return f"<figure><figcaption><b>{name}</b><span>{sent.loaded.size} px</span></figcaption></figure>"


def _render_token_map(sent: SentImage, plan: TilePlan, tiling: Tiling, said: str) -> str:
    """One image's token map. Text is HTML rather than drawn, so that it keeps its size and follows the theme.

    ``said``: what the tower wrote about the image, if it writes.
    """
    image = sent.loaded
    name = html.escape(image.name)
    panels = [
        f'<p>{html.escape(heading)}</p><img alt="{name}: {html.escape(heading)}" src="{_data_uri(panel)}">'
        for heading, panel in draw_panels(image.image, plan, tiling)
    ]
    legend = [
        f'<li><img alt="" src="{_data_uri(swatch)}">{html.escape(text)}</li>'
        for swatch, text in draw_legend(plan, tiling)
    ]
    tally = plan.say_positions() if plan.position_range else f"{plan.num_positions:,} tokens"
    return (
        f'<figure><figcaption><b>{name}</b><span class="tally">{tally}</span></figcaption>'
        f"<p>{html.escape(describe_plan(plan, tiling))}</p>{''.join(panels)}<ul>{''.join(legend)}</ul>"
        f"{f'<p>what it wrote down</p><pre>{html.escape(said)}</pre>' if said else ''}</figure>"
    )


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=88, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def render_usage(usage: Usage | None, first_s: float | None) -> str:
    """The token counts and the latency of an answer. Zeros are left out: some engines do not report all counts."""
    if usage is None:
        return ""
    facts = [("prompt tokens", usage.prompt_tokens), ("of these, images", usage.image_tokens)]
    facts += [("cached", usage.cached_tokens), ("answer tokens", usage.completion_tokens)]
    rows = "".join(f"<dt>{name}</dt><dd>{number:,}</dd>" for name, number in facts if number)
    if first_s is not None:
        rows += f"<dt>time to first token</dt><dd>{first_s:.2f} s</dd>"
    return f'<dl class="usage">{rows}</dl>'
