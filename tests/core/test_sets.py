"""Sets of sequences: epochs in which each comes once, orders that are functions of (seed, epoch), words by number."""

from __future__ import annotations

import pytest
import torch

from tprnn.core.sets import Epochs, in_order, words_of
from tprnn.core.streams import Stream

N, B = 12, 5


def stream(*seeds: int) -> Stream:
    return Stream(seeds, "train")


def test_every_epoch_has_each_sequence_once_and_an_order_of_its_own() -> None:
    rows = Epochs(stream(3), N).rows(range(2 * N), B).flatten()[: 4 * N]
    epochs = rows.view(4, N)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(N))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_rows_are_functions_of_seed_and_position_alone() -> None:
    """Of several runs each has its own; a position asked for alone, or by one run of many, is the same."""
    together = Epochs(stream(1, 2), N).rows(range(10), B).view(10, 2, B)
    for r, seed in enumerate((1, 2)):
        alone = Epochs(stream(seed), N)
        for position in (9, 0, 4, 3):  # also backwards, over the ends of epochs
            assert torch.equal(alone.rows([position], B)[0], together[position, r])
    assert not torch.equal(together[:, 0], together[:, 1])
    apart = Epochs(stream(1, 2), N).rows(torch.tensor([[7, 2]]), B)
    assert torch.equal(apart, torch.stack([together[7, 0], together[2, 1]]))


def test_orders_are_uniform() -> None:
    """How often a sequence comes first, over 3000 epochs: within four standard errors of one in N."""
    epochs = Epochs(stream(5), N)
    first = torch.tensor([int(epochs.order(epoch)[0, 0]) for epoch in range(3000)])
    shares = torch.bincount(first, minlength=N) / 3000
    assert shares.tolist() == pytest.approx([1 / N] * N, abs=4 * (1 / N * (1 - 1 / N) / 3000) ** 0.5)


def test_a_split_in_order_goes_round_and_round() -> None:
    rows = in_order(stream(1, 2), [0, 1, 2], B, N).view(3, 2, B)
    assert rows[:, 0].flatten().tolist() == [*range(N), 0, 1, 2]
    assert torch.equal(rows[:, 0], rows[:, 1])


def test_words_belong_to_a_sequence_whoever_asks() -> None:
    """Sequence n of a run has the words at position n of its stream, whatever else is asked for with it."""
    source = stream(1, 2)
    rows = Epochs(source, N).rows([0, 1, 2], B)
    found = words_of(source, rows, 7)
    assert found.shape == (3 * 2, B, 7)
    for place, seed in enumerate((1, 2, 1, 2, 1, 2)):
        for b in range(B):
            expected = stream(seed).words([int(rows[place, b])], 7)[0, 0]
            assert torch.equal(found[place, b], expected)
