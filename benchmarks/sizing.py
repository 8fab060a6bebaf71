"""The accelerator memory that released checkpoints need, computed from their shapes: no model is loaded or measured.

    python benchmarks/sizing.py            prints the tables of docs/serving-beyond.md
    python benchmarks/sizing.py --write    writes them there

The sizes of weights and KV cache, in 16 bits, are exact. The room for the KV cache is an estimate: 0.9 of the card's
memory, less the weights and 2 GB for activations. Tokens per second are an upper bound that no engine reaches: each
step has to read all weights of the decoder, and the KV cache of all running requests, at the memory's full bandwidth.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from llava.image.geometry import RELEASED_PINPOINTS, Tiling, plan_tiles

PAGE = Path(__file__).resolve().parent.parent / "docs/serving-beyond.md"
BYTES = 2  # of a number in 16 bits
SHARE = 0.9
WORK_BYTES = 2e9
# The text of a conversation, question and answer, beside its image.
TEXT_POSITIONS = 512

# CLIP ViT-L/14-336, the tower of all of them. Source: openai/clip-vit-large-patch14-336 config.json.
_TOWER_WIDTH, _TOWER_INNER, _TOWER_LAYERS, _PATCH_PX, _TILE_PX = 1024, 4096, 24, 14, 336


@dataclass(frozen=True)
class Shape:
    """A checkpoint's decoder, and whether it tiles images with AnyRes (LLaVA-1.6). Source: each one's config.json."""

    name: str
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    is_next: bool

    @property
    def decoder_parameters(self) -> int:
        """The parameters that one decode step reads: all layers, the last norm and the head, without the embeddings."""
        kv_width = self.width // self.heads * self.kv_heads
        attention = 2 * self.width * self.width + 2 * self.width * kv_width
        layer = attention + 3 * self.width * self.inner + 2 * self.width
        return self.layers * layer + self.width + self.vocabulary * self.width

    @property
    def other_parameters(self) -> int:
        """The parameters of embeddings, tower, projector and newline vector."""
        width, inner = _TOWER_WIDTH, _TOWER_INNER
        block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
        num_patches = (_TILE_PX // _PATCH_PX) ** 2
        tower = _TOWER_LAYERS * block + 3 * _PATCH_PX**2 * width + (num_patches + 1) * width + width + 4 * width
        projector = width * self.width + self.width * self.width + 2 * self.width
        return self.vocabulary * self.width + tower + projector + (self.width if self.is_next else 0)

    @property
    def weight_bytes(self) -> int:
        """The bytes of all weights."""
        return BYTES * (self.decoder_parameters + self.other_parameters)

    @property
    def position_bytes(self) -> int:
        """The bytes of one position's keys and values."""
        return BYTES * 2 * self.layers * self.kv_heads * (self.width // self.heads)

    @property
    def image_positions(self) -> int:
        """The most positions that an image takes."""
        tiling = Tiling(aspect="anyres", merge="spatial_unpad", pinpoints=RELEASED_PINPOINTS) if self.is_next else None
        if tiling is None:
            return (_TILE_PX // _PATCH_PX) ** 2
        return max(plan_tiles(size, tiling).num_positions for size in RELEASED_PINPOINTS)

    @property
    def conversation_positions(self) -> int:
        """The positions of a conversation about one image."""
        return self.image_positions + TEXT_POSITIONS


SHAPES = (
    Shape("llava-v1.5-7b", 4096, 11008, 32, 32, 32, 32000, 4096, False),
    Shape("llava-v1.5-13b", 5120, 13824, 40, 40, 40, 32000, 4096, False),
    Shape("llava-v1.6-vicuna-7b", 4096, 11008, 32, 32, 32, 32000, 4096, True),
    Shape("llava-v1.6-vicuna-13b", 5120, 13824, 40, 40, 40, 32000, 4096, True),
    Shape("llava-v1.6-mistral-7b", 4096, 14336, 32, 32, 8, 32000, 32768, True),
    Shape("llava-v1.6-34b", 7168, 20480, 60, 56, 8, 64000, 4096, True),
)


@dataclass(frozen=True)
class Card:
    """An accelerator: its memory in GB, and its memory bandwidth. Source: NVIDIA's data sheets."""

    name: str
    memory_gb: int
    bytes_per_s: float


CARDS = (
    Card("RTX 4090", 24, 1008e9),
    Card("L40S", 48, 864e9),
    Card("H100 SXM", 80, 3350e9),
    Card("H200", 141, 4800e9),
)


def count_conversations(shape: Shape, card: Card, num_cards: int = 1) -> int:
    """How many conversations about one image fit into the KV cache of these cards; 0 if the model does not fit."""
    room = num_cards * (SHARE * card.memory_gb * 1e9 - WORK_BYTES) - shape.weight_bytes
    return max(0, int(room // (shape.position_bytes * shape.conversation_positions)))


def count_cards(shape: Shape, card: Card) -> int:
    """The smallest number of cards, a power of two, that the model and one conversation fit on."""
    return next(number for number in (1, 2, 4, 8, 16) if count_conversations(shape, card, number))


def ceil_tokens_per_s(shape: Shape, card: Card, num_conversations: int, num_cards: int = 1) -> float:
    """The new tokens per second of all conversations together if reading memory took all the time."""
    read = BYTES * shape.decoder_parameters
    read += num_conversations * shape.position_bytes * shape.conversation_positions
    return num_conversations * num_cards * card.bytes_per_s / read


def memory_table() -> list[list[str]]:
    """The rows of the table of memory sizes, header first."""
    rows = [["checkpoint", "weights, GB", "KV of a position, KB", "positions of an image, at most", "its KV, GB"]]
    for shape in SHAPES:
        image = shape.image_positions
        rows.append(
            [
                shape.name,
                f"{shape.weight_bytes / 1e9:.1f}",
                f"{shape.position_bytes / 1e3:.0f}",
                f"{image:,}",
                f"{image * shape.position_bytes / 1e9:.2f}",
            ]
        )
    return rows


def card_table() -> list[list[str]]:
    """The rows of the table of cards, header first: conversations; tokens per second for one and for many."""
    rows = [["checkpoint", *(f"{card.memory_gb} GB ({card.name})" for card in CARDS)]]
    for shape in SHAPES:
        cells = []
        for card in CARDS:
            number = count_cards(shape, card)
            many = count_conversations(shape, card, number)
            one, all_ = (ceil_tokens_per_s(shape, card, count, number) for count in (1, min(many, 64)))
            cards = "" if number == 1 else f"{number} cards: "
            cells.append(f"{cards}{many}; {one:,.0f}; {all_:,.0f}")
        rows.append([shape.name, *cells])
    return rows


def write_tables() -> str:
    """Both tables in Markdown."""
    return "\n\n".join(_write_table(table) for table in (memory_table(), card_table()))


def _write_table(rows: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])


def put_tables(page: str) -> str:
    """The page with its tables brought up to date."""
    begin, end = "<!-- sizes: written by benchmarks/sizing.py --write -->", "<!-- end of sizes -->"
    assert begin in page, f"{PAGE.name} has no place for the tables"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{write_tables()}\n{end}", page, flags=re.DOTALL)


def main() -> int:
    """Prints the tables or writes them into the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/serving-beyond.md")
    if parser.parse_args().write:
        PAGE.write_text(put_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(write_tables())
    return 0


if __name__ == "__main__":
    sys.exit(main())
