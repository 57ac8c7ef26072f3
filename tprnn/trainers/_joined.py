"""Parameters of one update side by side: an optimizer step of all of them is then a handful of calls, not dozens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tprnn.trainers.base import State


class Joined:
    """Parameters and slots in one tensor [R, N] each; those of the state become views of it.

    Args:
        rates: for each name, the rate of each run; 0 where the parameter is frozen.
    """

    def __init__(self, state: State, names: tuple[str, ...], rates: Sequence[Sequence[float]]) -> None:
        self.names = names
        self.w, self.params = _join([state.params[name] for name in names])
        self.g = torch.empty_like(self.w)
        state.params.update(zip(names, self.params, strict=True))
        self.slots: dict[str, Tensor] = {}
        for slot in state.slots[names[0]]:
            of_each = [state.slots[name][slot] for name in names]
            if [x.shape for x in of_each] == [w.shape for w in self.params]:
                self.slots[slot], views = _join(of_each)
            else:  # one number per run, such as Adam's count of updates
                self.slots[slot], views = _share(of_each, names, slot)
            for name, view in zip(names, views, strict=True):
                state.slots[name][slot] = view
        widths = [w[0].numel() for w in self.params]
        of_runs = list(zip(*rates, strict=True))  # for each run, the rates of its parameters
        one_rate = all(rate == of_run[0] for of_run in of_runs for rate in of_run)
        table = self.w.new_tensor(of_runs)  # [R, names]
        wide = torch.cat(
            [column.unsqueeze(1).expand(-1, n) for column, n in zip(table.unbind(1), widths, strict=True)], 1
        )
        frozen = any(rate == 0.0 for of_run in of_runs for rate in of_run)
        self.frozen = wide == 0 if frozen else None
        """Entries that do not learn, [R, N]."""
        self.rate: Tensor | float = wide
        if len(set(of_runs)) == 1 and one_rate:
            self.rate = of_runs[0][0]
        elif one_rate:
            self.rate = table[:, :1].contiguous()

    def holds(self, state: State) -> bool:
        """Whether the state's parameters are the ones that lie here."""
        return all(state.params[name] is w for name, w in zip(self.names, self.params, strict=True))

    def side_by_side(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Gradients as [R, N], 0 where nothing learns: 0 times an infinite one would be nan. A buffer."""
        g = torch.cat([gradients[name].flatten(1) for name in self.names], 1, out=self.g)
        return g if self.frozen is None else g.masked_fill_(self.frozen, 0.0)


def _join(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """[R, ...] tensors as one [R, N], and views of it in their shapes."""
    flat = [x.flatten(1) for x in tensors]
    joined = torch.cat(flat, 1)
    parts = joined.split([x.shape[1] for x in flat], 1)
    return joined, [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]


def _share(tensors: Sequence[Tensor], names: Sequence[str], slot: str) -> tuple[Tensor, list[Tensor]]:
    """One number per run [R, 1] that stands for all, and views of it in their shapes."""
    shared = tensors[0].flatten(1).clone()
    if not all(torch.equal(x.flatten(1), shared) for x in tensors):
        raise ValueError(f"{', '.join(names)}: updated together, but their slots '{slot}' differ")
    return shared, [shared.view(x.shape) for x in tensors]
