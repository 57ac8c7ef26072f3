"""Update rules against torch.optim over 20 steps (Nesterov: against its own formula), and per-run hyper-parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import OPTIMIZERS, make_spec
from torch import Tensor

from tprnn.config import member_class
from tprnn.core import scans
from tprnn.optimizers.base import Optimizer, like, per_run

RATE = 0.03


@pytest.fixture(autouse=True, params=["by PyTorch", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test twice, the second time with compiled updates where a rule has one."""
    monkeypatch.setattr(scans, "COMPILED", {torch.float64} if request.param == "compiled" else set())


def make(name: str, changes: list[dict[str, Any]]) -> Optimizer:
    specs = [make_spec({f"optimizer.{key}": v for key, v in one.items()}, optimizer=name) for one in changes]
    rule = member_class("optimizer", specs[0].config["optimizer"]["rule"])
    return rule([spec.settings("optimizer") for spec in specs], torch.float64, "cpu")


def gradients(steps: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


def run(optimizer: Optimizer, w: Tensor, steps: list[Tensor], rate: Any) -> Tensor:
    w = w.clone()
    slots = optimizer.start(w)
    for g in steps:
        optimizer.update(w, g.clone(), like(rate, w), slots)
    return w


TORCH = {
    "sgd": (torch.optim.SGD, {"momentum": 0.0}, {"momentum": 0.0}),
    "sgd with momentum": (torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.8}),
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-10}, {"eps": 1e-10}),
    "rmsprop": (torch.optim.RMSprop, {"rho": 0.95, "eps": 1e-8}, {"alpha": 0.95, "eps": 1e-8}),
    "adam": (torch.optim.Adam, {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}, {"betas": (0.9, 0.99), "eps": 1e-8}),
}


@pytest.mark.parametrize("name", list(TORCH))
def test_equals_torch_over_20_steps(name: str) -> None:
    reference, ours, theirs = TORCH[name]
    start, steps = torch.ones(1, 3, 4, dtype=torch.float64), gradients(20, 1, 3, 4)
    leaf = torch.nn.Parameter(start.clone())
    optimizer = reference([leaf], lr=RATE, **theirs)
    for g in steps:
        leaf.grad = g.clone()
        optimizer.step()
    found = run(make(name.split()[0], [ours]), start, steps, RATE)
    assert torch.allclose(found, leaf.detach(), rtol=1e-12, atol=1e-14)
    assert (found - start).abs().max() > 0.1


def test_nesterov_equals_its_formula_over_20_steps() -> None:
    start, steps = torch.ones(1, 3, 4, dtype=torch.float64), gradients(20, 1, 3, 4)
    w, v = start.clone(), torch.zeros_like(start)
    for g in steps:
        v = 0.9 * v - RATE * g
        w = w + 0.9 * v - RATE * g
    found = run(make("nesterov", [{"momentum": 0.9}]), start, steps, RATE)
    assert torch.allclose(found, w, rtol=1e-13, atol=1e-15)


def other(name: str) -> dict[str, float]:
    """Every setting of an optimizer, moved a little."""
    settings = make_spec(optimizer=name).config["optimizer"]
    return {k: (v * 10 if k == "eps" else v * 0.9 + 0.01) for k, v in settings.items() if k not in ("name", "rule")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_runs_with_different_numbers_do_not_touch_each_other(name: str) -> None:
    start, steps = torch.ones(2, 3, 4, dtype=torch.float64), gradients(20, 2, 3, 4)
    rates = per_run([RATE, 0.5 * RATE], torch.float64, "cpu")
    together = run(make(name, [{}, other(name)]), start, steps, rates)
    for r, (changes, rate) in enumerate(zip([{}, other(name)], [RATE, 0.5 * RATE], strict=True)):
        alone = run(make(name, [changes]), start[r : r + 1], [g[r : r + 1] for g in steps], rate)
        assert torch.allclose(together[r], alone[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_zero_moves_nothing(name: str) -> None:
    start = torch.ones(1, 3, 4, dtype=torch.float64)
    assert torch.equal(run(make(name, [{}]), start, gradients(3, 1, 3, 4), 0.0), start)
