"""What became of the images of a question, as HTML: each one's tiles and positions, drawn, and the sums."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from llava.backends.protocol import ChatRequest, SentImage, Usage
from llava.image.geometry import TilePlan, Tiling, plan_images
from llava.image.tokenmap import describe_plan, draw_legend, draw_panels

EMPTY = """<div class="sees-empty"><p>When you ask about an image, you see here how the model saw it: the tiles it was
cut into, and which parts became tokens.</p></div>"""


def render_token_maps(request: ChatRequest, tiling: Tiling | None) -> str:
    """The images of the latest message that has any, each with its drawing.

    ``tiling``: None where the engine does not tell how it cuts images; then there are only sizes.
    """
    shown = next((sent for message in reversed(request.messages) if (sent := _images(message.parts))), [])
    if not shown:
        return EMPTY
    if tiling is None:
        return "".join(_show_size(sent) for sent in shown)
    plans = plan_images([sent.loaded.size for sent in shown], tiling, [sent.detail for sent in shown])
    return "".join(_render_token_map(sent, plan, tiling) for sent, plan in zip(shown, plans, strict=True))


def _images(parts: tuple[str | SentImage, ...]) -> list[SentImage]:
    return [part for part in parts if isinstance(part, SentImage)]


def _show_size(sent: SentImage) -> str:
    name = html.escape(sent.loaded.name)
    return f"<figure><figcaption><b>{name}</b><span>{sent.loaded.size} px</span></figcaption></figure>"


def _render_token_map(sent: SentImage, plan: TilePlan, tiling: Tiling) -> str:
    """Words are HTML, not drawn: they keep their size in a narrow panel, and follow its colours."""
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
    return (
        f'<figure><figcaption><b>{name}</b><span class="tally">{plan.num_positions:,} tokens</span></figcaption>'
        f"<p>{html.escape(describe_plan(plan, tiling))}</p>{''.join(panels)}<ul>{''.join(legend)}</ul></figure>"
    )


def _data_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=88, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def render_usage(usage: Usage | None, first_s: float | None) -> str:
    """A line about what a question and its answer took. Zeros are left out: some engines do not tell all."""
    if usage is None:
        return ""
    facts = [("prompt", usage.prompt_tokens), ("of it images", usage.image_tokens)]
    facts += [("known from before", usage.cached_tokens), ("answer", usage.completion_tokens)]
    rows = "".join(f"<dt>{name}</dt><dd>{number:,}</dd>" for name, number in facts if number)
    if first_s is not None:
        rows += f"<dt>first word after</dt><dd>{first_s:.2f} s</dd>"
    return f'<dl class="usage">{rows}</dl>'
