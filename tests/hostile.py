"""Arithmetic as a BLAS or a vector unit may have it: what is not rounded by a standard depends on shapes and places."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# One correct result for each entry (IEEE 754), or no arithmetic at all. Whatever is not listed counts as free.
EXACT = {
    *("add", "sub", "rsub", "mul", "div", "sqrt", "neg", "abs", "sign", "relu", "threshold_backward"),
    *("maximum", "minimum", "clamp", "clamp_min", "amax", "amin", "where", "masked_fill"),
    *(
        "copy",
        "clone",
        "contiguous",
        "_to_copy",
        "to",
        "cat",
        "stack",
        "index",
        "index_select",
        "scatter",
        "gather",
        "pad",
    ),
    *("fill", "zero", "repeat", "detach", "zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "resize", "reshape"),
}


class Hostile(TorchDispatchMode):
    """All other results are wrong by some roundings, as many as follow from how the arguments lie.

    That is from their shapes, strides, and places within a cache line: what PyTorch's own buffers have in common.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        """Names of the operations that were made wrong."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__.rstrip("_")
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.is_floating_point()]
        fused = kwargs.get("alpha", 1) != 1  # a multiplication and an addition, perhaps of one rounding
        if not given or (name in EXACT and not fused):
            return result
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.is_floating_point()]
        if not function._schema.is_mutable:  # a view computes nothing
            places = {x.untyped_storage().data_ptr() for x in given}
            made = [x for x in made if x.untyped_storage().data_ptr() not in places]
        layout = zlib.crc32(repr([(x.shape, _strides(x), x.data_ptr() % 64) for x in given]).encode())
        for x in made:
            self.seen.add(name)
            x.mul_(1.0 + (1 + layout % 97) * torch.finfo(x.dtype).eps)
        return result


def _strides(x: Tensor) -> list[int]:
    """Those that say anything: of axes with more than one entry."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
