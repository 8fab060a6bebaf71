"""The projector of the lexical tower: words keep their embeddings, and the look of things becomes soft words.

A thing's soft words begin as the mean of its likely names: p = softmax(1.5 logits) over the classes, times the language
model's own embeddings of each class name. What the pooled features say beyond the class is added by a small MLP, which
also sees colour and place. The names are kept as token ids, so that no embedding is saved twice.

    slots 0, 1    kind of the main thing ("bird", ",")
    slots 2 - 5   its name (" toucan")
    slots 6 - 14  one soft word for each cell of a 3x3 grid: what is there, and its colour

Shape letters: N positions, T things, L looks, D values of a feature, K likely classes, C width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from llava.model.lexical.efficientnet_lite import NUM_CLASSES, NUM_FEATURES
from llava.model.lexical.features import BASE, read_features

NUM_WHOLE, NUM_CELLS = 6, 9
INNER = 576
RANK = 48
"""Rank of what training adds to the embeddings of the class names."""

NUM_LIKELY = 24
"""So many of the likeliest classes are averaged by name; the MLP sees the shares of all."""

SHARPNESS = 1.5
SHARE_GAIN, FEATURE_GAIN, FEATURE_DROPOUT = 6.0, 0.5, 0.5
EMBEDDING_SCALE = 0.136
"""Standard deviation of SmolLM2's embeddings: what one unit of the MLP's output adds."""

NUM_COLOURS = 10
"""Values that `expand_colours` makes of RGB."""


def expand_colours(rgb_T3: torch.Tensor) -> torch.Tensor:
    """RGB in 0..1 and what names colours: brightness, chroma, hue as a vector, and products [T, 10]."""
    red, green, blue = rgb_T3.unbind(1)
    high, low = rgb_T3.amax(1), rgb_T3.amin(1)
    along, across = (2 * red - green - blue) / 2, (green - blue) * 0.866
    chroma = (along.square() + across.square()).sqrt() + 1e-4
    return torch.stack(
        [red, green, blue, high, low, chroma, along / chroma * (chroma * 4).clamp(max=1),
         across / chroma * (chroma * 4).clamp(max=1), high.square(), low.square()], 1,
    )  # fmt: skip


class LexicalProjector(nn.Module):
    """Features of the lexical tower -> embeddings of the language model."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width = config.hidden_size
        # Digits in base 256, which every float format holds exactly; see `features`.
        self.name_digits = nn.Parameter(torch.zeros(NUM_CLASSES, NUM_WHOLE, 2), requires_grad=False)
        self.feature_mean = nn.Parameter(torch.zeros(NUM_FEATURES), requires_grad=False)
        self.feature_scale = nn.Parameter(torch.ones(NUM_FEATURES), requires_grad=False)
        self.name_down = nn.Linear(NUM_CLASSES, RANK, bias=False)
        self.name_up = nn.ModuleList(nn.Linear(RANK, width) for _ in range(NUM_WHOLE + 1))
        inputs = NUM_CLASSES + NUM_FEATURES + NUM_COLOURS + 1 + NUM_CELLS
        self.inner = nn.Linear(inputs, INNER)
        self.outer = nn.ModuleList(nn.Linear(INNER, width) for _ in range(NUM_WHOLE + 1))
        self.cell_gain = nn.Parameter(torch.full((1,), 0.5))
        self.dropout = nn.Dropout(FEATURE_DROPOUT)
        for module in (*self.name_up, *self.outer):  # it begins as the embeddings of names
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def list_constants(self) -> list[nn.Parameter]:
        """The parameters that no training changes."""
        return [self.name_digits, self.feature_mean, self.feature_scale]

    def set_names(self, token_ids: Sequence[Sequence[int]], mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Take the six tokens of each class's name, and the moments that standardize features."""
        ids = torch.tensor(token_ids)
        with torch.no_grad():
            self.name_digits.copy_(torch.stack([ids // BASE, ids % BASE], -1))
            self.feature_mean.copy_(mean)
            self.feature_scale.copy_(scale)

    def forward(self, features_ND: torch.Tensor, embed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``features_ND`` -> [N, C]. ``embed``: the language model's embeddings of token ids."""
        seen = read_features(features_ND)
        things_TC = self.say(seen.looks, seen.slots, embed)
        rows_NC = things_TC.new_zeros(len(features_ND), things_TC.shape[1])
        rows_NC = rows_NC.index_put((seen.is_word.logical_not(),), things_TC)
        return rows_NC.index_put((seen.is_word,), embed(seen.token_ids).to(rows_NC))

    def say(
        self,
        looks_LD: torch.Tensor,
        slots_T: torch.Tensor,
        embed: Callable[[torch.Tensor], torch.Tensor],
        looks_T: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The soft words [T, C] of things. ``looks_T``: which look each has, where several share one; else its own."""
        if looks_T is None:
            looks_T = torch.arange(len(slots_T), device=slots_T.device)
        dtype = self.inner.weight.dtype
        features_LD, logits_LD, rgb_L3 = looks_LD.float().split([NUM_FEATURES, NUM_CLASSES, 3], 1)
        shares_LD = (SHARPNESS * logits_LD).softmax(1)
        standard_LD = (features_LD - self.feature_mean.float()) / self.feature_scale.float()
        # A look shared by several things has the same place in all of them: the whole image.
        places_L = torch.zeros(len(looks_LD), dtype=torch.long, device=slots_T.device)
        places_L = places_L.index_put((looks_T,), (slots_T - NUM_WHOLE + 1).clamp(min=0))
        places_LD = nn.functional.one_hot(places_L, NUM_CELLS + 1)
        inputs_LD = torch.cat(
            [SHARE_GAIN * shares_LD.sqrt(), self.dropout(FEATURE_GAIN * standard_LD),
             expand_colours(rgb_L3), places_LD], 1,
        )  # fmt: skip
        inner_LD = nn.functional.gelu(self.inner(inputs_LD.to(dtype)))
        names_LD = self.name_down(shares_LD.to(dtype))
        words_TC = self._mean_names(shares_LD, looks_T, slots_T, embed).to(dtype)
        for slot in range(NUM_WHOLE + 1):
            rows = slots_T == slot if slot < NUM_WHOLE else slots_T >= NUM_WHOLE
            added_TC = self.outer[slot](inner_LD[looks_T[rows]]) + self.name_up[slot](names_LD[looks_T[rows]])
            words_TC = words_TC.index_put((rows,), EMBEDDING_SCALE * added_TC, accumulate=True)
        return words_TC

    def _mean_names(
        self,
        shares_LD: torch.Tensor,
        looks_T: torch.Tensor,
        slots_T: torch.Tensor,
        embed: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """The embeddings of the likely classes' names at each thing's slot, averaged by their shares [T, C].

        A cell has one soft word, which begins as the first word of the kind.
        """
        shares_LK, classes_LK = shares_LD.topk(NUM_LIKELY, 1)
        shares_TK = (shares_LK / shares_LK.sum(1, keepdim=True))[looks_T]
        is_cell_T = slots_T >= NUM_WHOLE
        digits_TK2 = self.name_digits[classes_LK[looks_T], torch.where(is_cell_T, 0, slots_T)[:, None]].round().long()
        names_TKC = embed(digits_TK2[..., 0] * BASE + digits_TK2[..., 1]).float()
        gain_T1 = torch.where(is_cell_T, self.cell_gain.float(), 1.0)[:, None]
        return torch.einsum("tk,tkc->tc", shares_TK * gain_T1, names_TKC)
