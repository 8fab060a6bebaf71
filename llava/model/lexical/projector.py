"""The projector of a lexical tower: words become their own embeddings, and the look of things becomes soft words.

Shape letters: N positions, D values of a feature, C width of the language model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llava.model.lexical.features import read_features


class LexicalProjector(nn.Module):
    """Features of a lexical tower -> embeddings. (A stand-in: the projector of branch t-things takes its place.)"""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.things = nn.Linear(config.mm_hidden_size - 3, config.hidden_size)

    def forward(self, features_ND: torch.Tensor, embed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``features_ND`` -> [N, C]. ``embed``: the language model's embeddings of token ids."""
        seen = read_features(features_ND)
        things = self.things(seen.looks.to(self.things.weight.dtype))
        rows_NC = things.new_zeros(len(features_ND), things.shape[1])
        rows_NC = rows_NC.index_put((seen.is_word.logical_not(),), things)
        return rows_NC.index_put((seen.is_word,), embed(seen.token_ids).to(rows_NC))
