"""Sets of sequences: which of them a position of a stream stands for.

A training set of N sequences is gone through in epochs. Each epoch has an order of its own, drawn by the seed; a batch
at position p takes places p B .. p B + B - 1 of the endless row of epochs, so that all of it is a function of (seed,
position), and nothing but the iteration is saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tprnn.core.streams import Stream


class Epochs:
    """The orders in which runs go through a set of N sequences.

    Args:
        stream: its seeds draw the orders; its name keeps them apart from those of other streams.
        N: sequences of the set.
    """

    def __init__(self, stream: Stream, N: int) -> None:
        self.stream, self.N = stream.child("order"), N
        self._orders: dict[int, Tensor] = {}

    def order(self, epoch: int) -> Tensor:
        """A permutation of 0 .. N - 1 for each run, [R, N]; the last two are kept."""
        if epoch not in self._orders:
            for old in sorted(self._orders)[:-1]:
                del self._orders[old]
            words = self.stream.words([epoch], self.N)[0]
            # words may be equal: a stable order is the same on every device
            self._orders[epoch] = words.sort(dim=-1, stable=True).indices
        return self._orders[epoch]

    def rows(self, positions: Sequence[int] | Tensor, B: int) -> Tensor:
        """Which sequences a batch of B at each of P positions has: [P * R, B], numbers of the set."""
        device, R = self.stream.k0.device, len(self.stream.k0)
        position = self.stream.at(positions).expand(-1, R)  # [P, R]
        places = position.unsqueeze(-1) * B + torch.arange(B, device=device)  # [P, R, B]
        if device.type == "meta":  # positions without values: which epochs they are in cannot be asked
            return places.flatten(0, 1)
        epochs, within = places // self.N, places % self.N
        found = torch.empty_like(places)
        for epoch in epochs.unique().tolist():
            of_epoch = self.order(epoch).expand(len(position), -1, -1).gather(-1, within)
            found = torch.where(epochs == epoch, of_epoch, found)
        return found.flatten(0, 1)


def words_of(stream: Stream, rows: Tensor, count: int) -> Tensor:
    """The words that sequences of a set are made of: row n of run r has those at position n, [P * R, B, count].

    A set that is drawn once is then the same whichever of its sequences are looked at, and in which order.
    """
    R, B = len(stream.k0), rows.shape[-1]
    positions = rows.unflatten(0, (-1, R)).movedim(-1, 1).reshape(-1, R)  # [P * B, R]
    return stream.words(positions, count).unflatten(0, (-1, B)).movedim(1, 2).flatten(0, 1)


def in_order(stream: Stream, positions: Sequence[int] | Tensor, B: int, N: int) -> Tensor:
    """The sequences p B .. p B + B - 1 of a set of N, round and round, for each run at each position p: [P * R, B]."""
    device, R = stream.k0.device, len(stream.k0)
    places = stream.at(positions).unsqueeze(-1) * B + torch.arange(B, device=device)
    return (places % N).expand(-1, R, -1).flatten(0, 1)
