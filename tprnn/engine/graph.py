"""An iteration as one CUDA graph.

At T = 100 an iteration of TPTT is about a thousand small kernels, one of LRA fifteen thousand; to launch them one by
one from Python takes longer than to compute them. A graph is recorded once and launched as a whole. What is recorded
may not ask the device for a value (tests/engine/test_device.py holds every rule to that), and its tensors stay where
they are: state in place, batches by copy (tests/engine/test_graph.py). A rule that calls a library which cannot be
recorded (cuSOLVER's factorisations) goes on call by call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from tprnn.tasks.base import Batch

_WARM_UP = 3  # iterations outside a graph first, in which libraries make their workspaces and buffers come to be


class Captured:
    """Iterations of one ensemble: as they are at first, as a recorded graph from then on.

    What iterates is handed over at each call and not kept: it belongs to the ensemble that keeps this, and a circle,
    with all its memory on the device, would wait for a garbage collector that does not know how full the device is.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.warm_up = _WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None
        self.refused = False
        """Whether a recording was tried in vain."""

    def __call__(self, iterate: Callable[[Batch], None], batch: Batch) -> None:
        if self.refused:
            iterate(batch)
        elif self.warm_up:
            self.warm_up -= 1
            self._aside(iterate, batch)
        elif self.graph is not None:
            self.batch.copy_(batch)
            self.graph.replay()
        else:
            self._record(iterate, batch)
            self(iterate, batch)  # a recording computes nothing

    def _aside(self, iterate: Callable[[Batch], None], batch: Batch) -> None:
        """On the stream of the recording, so that the workspaces it finds are those made here."""
        if self.warm_up == _WARM_UP - 1:
            self.stream = torch.cuda.Stream(self.device)
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            iterate(batch)
        here.wait_stream(self.stream)

    def _record(self, iterate: Callable[[Batch], None], batch: Batch) -> None:
        """Sets `graph`, or `refused` with a warning. Raises torch.OutOfMemoryError."""
        here = torch.cuda.current_stream(self.device)
        graph, self.batch = torch.cuda.CUDAGraph(), batch.clone()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                iterate(self.batch)
            self.graph = graph
        except RuntimeError as error:
            if isinstance(_first(error), torch.OutOfMemoryError):
                raise _first(error) from None
            self.refused = True
            reason = str(_first(error)).splitlines()[0]
            warnings.warn(f"an iteration could not be recorded and runs call by call: {reason}", stacklevel=2)
        finally:
            torch.cuda.set_stream(here)  # the end of a broken recording leaves the other one current


def _first(error: BaseException) -> BaseException:
    """What broke a recording, whose end then raises once more.

    Not kept in a variable where it was caught: its traceback would keep that variable, and both the ensemble.
    """
    return error if isinstance(error, torch.OutOfMemoryError) else error.__context__ or error
