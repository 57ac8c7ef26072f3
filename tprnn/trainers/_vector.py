"""Parameters of one update side by side: an optimizer step of all of them is then a handful of calls, not dozens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_LINE = 64  # bytes


class ParameterVector:
    """Parameters and slots in one tensor [R, N] each; those of the state become views of it.

    Each begins a cache line, as tensors of their own do, with zeros between: some products of a BLAS have other bits
    for a matrix that begins elsewhere, and a run that goes on from a checkpoint begins with tensors of their own.

    Args:
        params, slots: of a state, by name.
        rates: for each name, the rate of each run; 0 where the parameter is frozen.
    """

    def __init__(
        self,
        params: dict[str, Tensor],
        slots: Mapping[str, dict[str, Tensor]],
        names: tuple[str, ...],
        rates: Sequence[Sequence[float]],
    ) -> None:
        self.names = names
        self.w, self.params = _join([params[name] for name in names])
        self.g, self.gradients = _places(self.params)
        params.update(zip(names, self.params, strict=True))
        self.slots: dict[str, Tensor] = {}
        for slot in slots[names[0]]:
            of_each = [slots[name][slot] for name in names]
            if [x.shape for x in of_each] == [w.shape for w in self.params]:
                self.slots[slot], views = _join(of_each)
            else:  # one number per run, such as Adam's count of updates
                self.slots[slot], views = _share(of_each, names, slot)
            for name, view in zip(names, views, strict=True):
                slots[name][slot] = view
        of_runs = list(zip(*rates, strict=True))  # for each run, the rates of its parameters
        one_rate = all(rate == of_run[0] for of_run in of_runs for rate in of_run)
        table = self.w.new_tensor(of_runs)  # [R, names]
        wide, _ = _join(
            [rate.unsqueeze(1).expand(w.flatten(1).shape) for rate, w in zip(table.unbind(1), self.params, strict=True)]
        )
        frozen = any(rate == 0.0 for of_run in of_runs for rate in of_run)
        self.frozen = wide == 0 if frozen else None
        """Entries that do not learn, [R, N]."""
        self.rate: Tensor | float = wide
        if len(set(of_runs)) == 1 and one_rate:
            self.rate = of_runs[0][0]
        elif one_rate:
            self.rate = table[:, :1].contiguous()

    def holds(self, params: Mapping[str, Tensor]) -> bool:
        """Whether a state's parameters are the ones that lie here."""
        return all(params[name] is w for name, w in zip(self.names, self.params, strict=True))

    def side_by_side(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Gradients as [R, N], 0 where nothing learns: 0 times an infinite one would be nan. A buffer."""
        for place, name in zip(self.gradients, self.names, strict=True):
            place.copy_(gradients[name])
        return self.g if self.frozen is None else self.g.masked_fill_(self.frozen, 0.0)


def _join(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """[R, ...] tensors as one [R, N], and views of it in their shapes."""
    vector, places = _places(tensors)
    for place, x in zip(places, tensors, strict=True):
        place.copy_(x)
    return vector, places


def _places(like: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Zeros [R, N] with room for tensors [R, ...], and views of it in their shapes."""
    line = _LINE // like[0].itemsize
    widths = [x[0].numel() for x in like]
    padded = [width + -width % line for width in widths]
    vector = like[0].new_zeros(len(like[0]), sum(padded))
    parts = zip(vector.split(padded, 1), widths, like, strict=True)
    return vector, [part[:, :width].view(x.shape) for part, width, x in parts]


def _share(tensors: Sequence[Tensor], names: Sequence[str], slot: str) -> tuple[Tensor, list[Tensor]]:
    """One number per run [R, 1] that stands for all, and views of it in their shapes."""
    shared = tensors[0].flatten(1).clone()
    if not all(torch.equal(x.flatten(1), shared) for x in tensors):
        raise ValueError(f"{', '.join(names)}: updated together, but their slots '{slot}' differ")
    return shared, [shared.view(x.shape) for x in tensors]
