"""What the two temporal order problems share: marked symbols among distractors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tprnn.core.streams import below
from tprnn.tasks.base import Batch

DISTRACTORS = 4  # a, b, c, d are tokens 0..3; X is 4, Y is 5


def positions(T: int, tenths: Sequence[int], reading: str) -> list[tuple[int, int]]:
    """(first 0-based position, how many) for each marked symbol.

    released: floor(k T / 10) + U{0 .. floor(T/10) - 1}. paper: 1-based whole numbers on [k T/10, (k+1) T/10].
    """
    if reading == "released":
        return [(k * T // 10, T // 10) for k in tenths]
    ranges = [(-(-k * T // 10), (k + 1) * T // 10) for k in tenths]
    return [(first - 1, last - first + 1) for first, last in ranges]


def sample(words: Tensor, T: int, places: Sequence[tuple[int, int]]) -> Batch:
    """Words [R, B, T + 2 n] -> tokens with n marked symbols; the class reads them as a binary number, Y = 1."""
    n = len(places)
    tokens = below(words[..., :T], DISTRACTORS)
    target = torch.zeros_like(tokens[..., 0])
    for i, (first, count) in enumerate(places):
        symbol = below(words[..., T + i], 2)
        position = first + below(words[..., T + n + i], count)
        tokens.scatter_(-1, position.unsqueeze(-1), (symbol + DISTRACTORS).unsqueeze(-1))
        target = 2 * target + symbol
    return Batch(tokens.mT.contiguous(), target.unsqueeze(1))
