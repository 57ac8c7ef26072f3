"""What rules and networks say that an iteration takes (`Costs`, `Model.products`) is what they compute."""

from __future__ import annotations

import math
from typing import Any

import pytest
from conftest import MEMBERS, make_spec
from torch.utils._python_dispatch import TorchDispatchMode

from tprnn.bench.floors import trainers
from tprnn.config import member_class
from tprnn.core import scans, streams
from tprnn.cost import modelled as cost
from tprnn.cost.modelled import terms
from tprnn.engine import ensemble
from tprnn.trainers import tptt


class Products(TorchDispatchMode):
    """Counts the multiplications of matrices inside, as 2 x rows x inner x columns."""

    def __init__(self, H: int) -> None:
        super().__init__()
        self.H, self.flops = H, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__.rstrip("_") in ("mm", "bmm", "addmm", "baddbmm"):
            x, w = args[-2:]
            # square weights and their gradients; read-out and look-ups are no passes
            inner, outer = (x.shape[-1], x.shape[-2]), w.shape[-1]
            if outer % self.H == 0 and (self.H in inner or (outer == self.H and inner[0] % self.H == 0)):
                self.flops += 2 * x.numel() * outer
        return func(*args, **(kwargs or {}))


def assert_declared(changes: dict[str, Any], trainer: str, model: str = "srn") -> None:
    H, T, B = 32, 40, 3
    spec = make_spec({"task.T": T, "model.H": H, "train.batch_size": B} | changes, trainer=trainer, model=model)
    rule = member_class("trainer", spec.config["trainer"]["rule"])
    one = ensemble.Ensemble([spec, spec.replace({"seed": 1})])
    batch = one.batch(0)
    with Products(H) as counted:
        one.trainer.step(one.state, batch, 0)
    declared = rule.costs(spec.config).times(one.model.products)
    count = counted.flops / (2 * 2 * T * B * H * H)
    # a pass back has T - 1 steps, which counts where there are many
    of_weights = declared.square * H / (T * B)  # of H rows instead of T B
    expected = declared.dependent + declared.rows + declared.outer + of_weights
    assert count == pytest.approx(expected, abs=0.15, rel=1 / T)


@pytest.fixture(autouse=True)
def call_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled products are the same and cannot be counted."""
    monkeypatch.setattr(scans, "COMPILED", set())


@pytest.mark.parametrize("trainer", trainers())
def test_a_rule_that_declares_its_passes_computes_these(trainer: str) -> None:
    assert_declared({}, trainer)


@pytest.mark.parametrize("model", MEMBERS["model"])
def test_a_network_takes_a_rule_s_passes_as_often_as_it_says(model: str) -> None:
    assert_declared({}, "bptt", model)
    one, srn = (cost.shape_of(make_spec(model=name)) for name in (model, "srn"))
    for count in (terms, cost.pass_terms):
        assert count(one, 1, 1e9)["dependent"] == one.products * count(srn, 1, 1e9)["dependent"] > 0.0


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer.K": 2},
        {"trainer.omega": 1.0, "trainer.omega_on": "paper"},
        {"trainer.omega": 1.0, "trainer.omega_on": "released"},
        {"trainer.omega": 1.0, "trainer.omega_on": "weights"},
        {"trainer.inner": "literal", "trainer.gradient": "through_time"},
        {"trainer.inner": "literal", "trainer.gradient": "released", "trainer.omega": 1.0},
    ],
    ids=str,
)
def test_declared_passes_follow_the_settings(changes: dict[str, Any]) -> None:
    assert_declared(changes, "lra")


@pytest.mark.parametrize("changes", [{}, {"trainer.noise": 0.1}], ids=str)
@pytest.mark.parametrize("trainer", ["tptt", "tptt_hx", "tptt_sigma"])
def test_a_rule_draws_the_normal_numbers_that_it_declares(
    trainer: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counted(stream: Any, position: Any, shape: tuple[int, ...], *rest: Any, **named: Any) -> Any:
        drawn.append(math.prod(shape))
        return streams.normals(stream, position, shape, *rest, **named)

    monkeypatch.setattr(tptt, "normals", counted)
    assert_declared(changes, trainer)
    drawn.clear()
    spec = make_spec(changes, trainer=trainer)
    ensemble.Ensemble([spec]).advance()
    shape = cost.shape_of(spec)
    assert drawn == [shape.T * shape.B * shape.H] * shape.costs.normals
