"""On a CPU a run has the same bits alone, in every stack and after every break, whatever kernels products have."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from conftest import MEMBERS, OPTIMIZERS, make_spec
from hostile import Hostile
from neighbours import FORMS, neighbours
from quick_runs import After, strip
from run_files import in_process, same_bits

from tprnn.config import RunSpec
from tprnn.core import scans
from tprnn.engine import loop
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.loop import work_through
from tprnn.engine.queue import Queue, ensemble_size
from tprnn.engine.signals import Stop
from tprnn.store import Store
from tprnn.sweep.run import run_all

# buffers whose size is no multiple of a vector's
ODD = {"model.H": 7, "train.batch_size": 3, "task.T": 10}
SHORT = {"train.check_every": 2, "train.max_iterations": 3, "train.validation_size": 12, "train.full_check_every": 2}


def trained(specs: list[RunSpec], folder: Path, stop: Stop | None = None) -> tuple[list[Any], set[str]]:
    """What each run of a stack left behind, but for seconds, and the operations that hostile arithmetic changed."""
    store, hostile = Store(folder), Hostile()
    with hostile:
        outcomes = work_through(Queue(specs), store, stop or threading.Event(), lambda kind, spec, row: None)
    if stop is not None:
        return [outcome.result for outcome in outcomes], hostile.seen
    assert [outcome.error for outcome in outcomes] == [None] * len(specs)
    found = []
    for spec in specs:
        run = store.folder(spec)
        told = {key: value for key, value in (run.result() or {}).items() if key not in ("seconds", "stack")}
        model = run.load_model()
        assert model is not None
        found.append((told, strip(run.read_metrics()), model[0]))
    return found, hostile.seen


def same(one: Any, other: Any) -> bool:
    """Results, metrics and weights; a nan is equal to a nan."""
    return repr(one[:2]) == repr(other[:2]) and same_bits(one[2], other[2])


def form(trainer: str, changes: dict[str, Any], **choices: str) -> list[RunSpec]:
    return neighbours(trainer, ODD | SHORT | changes, probe="all", **choices)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("trainer", "changes", "choices"),
    [
        *[(trainer, {}, {"task": "adding"}) for trainer in MEMBERS["trainer"]],
        *FORMS,
        ("bptt", {"model.activation": "sigmoid"}, {}),
        ("tptt_sigma", {"model.activation": "relu"}, {}),
    ],
    ids=str,
)
def test_a_stack_of_three_is_each_run_alone_under_hostile_arithmetic(
    tmp_path: Path, trainer: str, changes: dict[str, Any], choices: dict[str, str], dtype: str
) -> None:
    specs = form(trainer, changes | {"dtype": dtype}, **choices)
    together, _ = trained(specs, tmp_path / "together")
    for spec, found in zip(specs, together, strict=True):
        (alone,), _ = trained([spec], tmp_path / f"alone {spec.signature}")
        assert same(found, alone)
        assert found[0]["iterations"] == 3


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_a_run_that_goes_on_is_the_run_that_was_not_stopped_under_hostile_arithmetic(
    tmp_path: Path, trainer: str
) -> None:
    spec = form(trainer, {"dtype": "float64", "train.check_every": 6, "train.max_iterations": 6}, task="adding")[1]
    (straight,), _ = trained([spec], tmp_path / "straight")
    (stopped,), _ = trained([spec], tmp_path / "stopped", After(5))
    assert stopped["status"] == "interrupted"
    assert 0 < stopped["iterations"] < 6
    (resumed,), _ = trained([spec], tmp_path / "stopped")
    assert same(resumed, straight)


@pytest.mark.parametrize(("trainer", "dtype"), [("tptt", "float64"), ("bptt", "float32")])
def test_hostile_arithmetic_tells_ensembles_of_several_runs_from_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, dtype: str
) -> None:
    specs = form(trainer, {"dtype": dtype})
    alone = [trained([spec], tmp_path / spec.signature)[0][0] for spec in specs]
    monkeypatch.setattr(loop, "ensemble_size", lambda spec: 3)
    together, changed = trained(specs, tmp_path / "together")
    assert changed
    assert not any(same(*pair) for pair in zip(together, alone, strict=True))


def test_hostile_arithmetic_reaches_all_calls_and_leaves_exact_ones_alone() -> None:
    x, W, out = torch.rand(1, 3, 7), torch.rand(1, 7, 7), torch.empty(1, 3, 7)
    calls = {
        "bmm": lambda: torch.bmm(x, W, out=out),
        "addmm": lambda: torch.addmm(x[0], x[0], W[0], out=out[0]),
        "tanh": lambda: out.copy_(x).tanh_(),
        "tanh_backward": lambda: torch.ops.aten.tanh_backward.grad_input(x, x, grad_input=out),
        "sum": lambda: x.sum(1),
        "add": lambda: torch.add(x, x, alpha=0.3),
    }
    exact = {
        "add": lambda: torch.add(x, x, out=out),
        "view": lambda: x.unflatten(-1, (7, 1)).mT,
        "div": lambda: x / 3.0,
        "look-up": lambda: x[0].index_select(0, torch.tensor([2, 1])),
    }
    with torch.inference_mode():
        for name, call in calls.items():
            true = call().clone()
            with Hostile() as hostile:
                found = call()
            assert name in hostile.seen
            assert not torch.equal(found, true)
            torch.testing.assert_close(found, true, rtol=1e-4, atol=0.0)
        for name, call in exact.items():
            true = call().clone()
            with Hostile() as hostile:
                assert torch.equal(call(), true), name
            assert not hostile.seen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_on_a_cpu_each_run_is_a_ensemble_by_itself(dtype: str, activation: str) -> None:
    changes = {"dtype": dtype, "model.activation": activation, "stack_size": 40}
    assert ensemble_size(make_spec(changes)) == 1
    assert ensemble_size(make_spec(changes | {"device": "cuda"})) == 40


# ---- what this stands on: a call has the same bits for the same shapes and numbers that lie alike in cache lines

LINE = 64  # bytes


def moved(x: torch.Tensor, by: int) -> torch.Tensor:
    """The same numbers `by` bytes further on in a buffer."""
    entries = by // x.itemsize
    buffer = torch.empty(x.numel() + entries, dtype=x.dtype)
    return buffer[entries:].view(x.shape).copy_(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "H"), [(20, 100), (3, 7), (10, 13), (1, 1)])
def test_bits_do_not_depend_on_which_cache_lines_numbers_lie_in(B: int, H: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, W, h = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((B, H), (H, H), (5 * B, H)))
    calls = {
        "mm": lambda x, W, h: torch.mm(x, W),
        "mm of a transpose": lambda x, W, h: torch.mm(x, W.mT),
        "addmm": lambda x, W, h: torch.addmm(x, x, W),
        "bmm": lambda x, W, h: torch.bmm(h[None].mT, h[None]),
        "tanh": lambda x, W, h: x.tanh(),
        "sigmoid": lambda x, W, h: x.sigmoid(),
        "log_softmax": lambda x, W, h: x.log_softmax(-1),
        "addcmul": lambda x, W, h: torch.addcmul(x, x, x, value=-1.0),
        "sum": lambda x, W, h: h.sum(0),
        "norm": lambda x, W, h: h.norm(),
        "cholesky": lambda x, W, h: torch.linalg.cholesky_ex(W @ W.mT + torch.eye(H, dtype=dtype)).L,
        "eigenvalues": lambda x, W, h: torch.view_as_real(torch.linalg.eigvals(W)),
    }
    for name, call in calls.items():
        expected = call(x, W, h)
        for lines in (1, 2, 3, 50):
            found = call(*(moved(given, LINE * lines * (i + 1)) for i, given in enumerate((x, W, h))))
            assert torch.equal(found, expected), (name, lines)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_parameters_begin_at_a_cache_line_before_and_after_an_update(trainer: str, optimizer: str) -> None:
    ensemble = Ensemble([make_spec(ODD, trainer=trainer, optimizer=optimizer)])
    for _ in range(2):
        assert {w.data_ptr() % LINE for w in ensemble.state.params.values()} == {0}
        ensemble.advance()


def test_buffers_of_pytorch_begin_at_a_cache_line() -> None:
    assert {torch.empty(entries).data_ptr() % LINE for entries in range(1, 2000, 7)} == {0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("B", "H"), [(20, 100), (3, 7), (10, 13), (1, 1)])
def test_products_of_compiled_code_do_not_depend_on_where_numbers_lie_at_all(B: int, H: int, dtype: Any) -> None:
    """Scratch of compiled code lies as it comes."""
    scans.kernels()  # whose BLAS is loaded with them
    product = numba.njit(lambda x, W, out: np.dot(x, W, out))
    generator = torch.Generator().manual_seed(0)
    x, W = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((B, H), (H, H)))
    x, W = (torch.from_numpy(given.numpy().astype(dtype)) for given in (x, W))
    expected = product(x.numpy(), W.numpy(), np.empty((B, H), dtype))
    for by in range(8, 72, 8):
        a, b, out = (moved(given, by * (i + 1)).numpy() for i, given in enumerate((x, W, x)))
        assert np.array_equal(product(a, b, out), expected), by


# ---- the same bytes


def test_the_same_run_in_two_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    specs = [make_spec(ODD | SHORT | {"outputs": str(tmp_path / name)}, trainer="tptt") for name in ("here", "there")]
    run_all(specs[:1])
    code = """
        import json, sys
        from tprnn.config import RunSpec
        from tprnn.sweep.run import run_all
        run_all([RunSpec.from_config(json.loads(sys.argv[1]))])
        """
    assert in_process(code, json.dumps(specs[1].as_dict())).returncode == 0
    files = [file for name in ("here", "there") for file in tmp_path.glob(f"{name}/runs/*/model.safetensors")]
    assert len(files) == 2
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1
