"""An iteration as one CUDA graph.

At T = 100 an iteration of TPTT is about two thousand small kernels; to launch them one by one from Python takes longer
than to compute them. A graph is recorded once and launched as a whole. What is recorded may not ask the device for a
value (tests/test_device.py holds every rule to that), and its tensors stay where they are: state in place, batches by
copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tprnn.tasks.base import Batch

_WARM_UP = 3  # iterations outside a graph first, in which libraries make their workspaces and buffers come to be


class Captured:
    """Calls `iterate` on a batch: as it is for the first iterations, as a recorded graph from then on."""

    def __init__(self, iterate: Callable[[Batch], None]) -> None:
        self.iterate = iterate
        self.warm_up = _WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> None:
        if self.warm_up:
            self.warm_up -= 1
            self._aside(batch)
            return
        if self.graph is None:
            self.batch = batch.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):  # records, computes nothing
                self.iterate(self.batch)
        self.batch.copy_(batch)
        self.graph.replay()

    def _aside(self, batch: Batch) -> None:
        """On a side stream, as the recording will be."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self.iterate(batch)
        here.wait_stream(aside)
