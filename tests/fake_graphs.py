"""CUDA graphs without a GPU: what is called while one is recorded is called again, on the same tensors, at a replay.

As on a GPU, a recording computes nothing: tensors that were there before keep their values, those it makes hold rubbish
until a replay fills them, and Python code runs only while recording.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tprnn.core import scans, streams


def memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def tensors(*trees: Any) -> list[Tensor]:
    return [x for x in tree_leaves(trees) if isinstance(x, Tensor)]


class Graph(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph, and for its own recording."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: dict[int, Tensor] = {}
        self.before: dict[int, tuple[Tensor, Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {memory(x) for x in tensors(args, kwargs)}
        for argument, value in self._named(function, args, kwargs):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for x in tensors(value):
                    if memory(x) not in self.made and memory(x) not in self.before:
                        self.before[memory(x)] = x, x.untyped_storage().clone()
        result = function(*args, **kwargs)
        self.made |= {memory(x): x for x in tensors(result) if memory(x) not in given}
        self.calls.append((function, args, kwargs, result))
        return result

    @staticmethod
    def _named(function: Any, args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
        arguments = function._schema.arguments
        yield from zip(arguments, args, strict=False)
        yield from ((one, kwargs[one.name]) for one in arguments if one.name in kwargs)

    def recorded(self) -> None:
        """What was there is as it was; what was made holds rubbish."""
        for x, values in self.before.values():
            x.untyped_storage().copy_(values)
        for x in self.made.values():
            x.untyped_storage().fill_(0x7F)  # a huge number in every type

    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            for old, new in zip(tensors(result), tensors(function(*args, **kwargs)), strict=True):
                if memory(old) != memory(new):
                    old.copy_(new)


@contextlib.contextmanager
def recording(graph: Graph, stream: Any = None) -> Iterator[None]:
    """Stands for torch.cuda.graph."""
    with graph:
        yield
    graph.recorded()


def words(out: Any, k0: Any, k1: Any, positions: Any) -> None:
    """The random words of core/compiled_streams by PyTorch's calls, which can be recorded."""
    found = torch.from_numpy(out)
    keys, position = (torch.from_numpy(k0), torch.from_numpy(k1)), torch.from_numpy(positions)
    found.copy_(streams.philox_words(*keys, position.unsqueeze(-1), found.shape[-1]))


def normals(out: Any, k0: Any, k1: Any, positions: Any) -> None:
    """Its normal numbers."""
    found = torch.from_numpy(out)
    count = found.shape[-1]
    drawn = torch.empty(1, len(k0), count + count % 2, dtype=torch.int64)
    words(drawn.numpy(), k0, k1, numpy.ascontiguousarray(positions)[None])
    found.copy_(streams.normal(drawn[0], found.dtype)[:, :count])


@pytest.fixture
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda's graphs and streams on a CPU, and no recurrence or stream compiled, as on a GPU."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(scans, "COMPILED", set())
    compiled = SimpleNamespace(words=words, normals=normals)
    monkeypatch.setattr(streams, "kernels", lambda name: compiled)
