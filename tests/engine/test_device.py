"""The GPU path as far as it goes without one: whole iterations on the meta device, whose tensors have no values.

What a CUDA graph records must not ask a tensor for its value, must not copy from the host, and must keep its tensors
where they are. The first two are found here; the last, and the numbers themselves, need a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import MEMBERS, OPTIMIZERS, TASKS, make_spec
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tprnn.core.products import lookup_gradient
from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

SMALL = {"model.H": 8, "train.batch_size": 5, "task.T": 10, "device": "meta"}
EVERYTHING = {
    "trainer.noise": [0.0, 0.1],
    "trainer.p_g": [0.5, 0.2],
    "trainer.omega": [0.0, 1.0],
    "trainer.clip_norm": [None, 1.0],
    "trainer.scale": [0.1, 1.0],
    "trainer.r": [1.0, 10.0],
    "trainer.g_first": [0, 2],
    "trainer.shrink": [1.0, 0.9],
    "trainer.gamma": [0.1, 10.0],
    "trainer.c_0": [0.0, 1.0],
    "trainer.c_1": [0.0, 1.0],
    "trainer.freeze": [[], ["W_hh"]],
    "trainer.K": [2, 2],  # the same for all, and enough to see all of an inner loop
}


class FromHost(TorchDispatchMode):
    """Raises where values come from the host to the device, which a recording may not hold."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        got = {x.device.type for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
        assert not ("cpu" in given | got and "meta" in given | got), f"{function} copies from the host"
        return result


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a tensor is made from numbers of the host")


def ensemble_of(monkeypatch: pytest.MonkeyPatch, structural: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    """Two runs that differ in all they can, with the iterations before a recording done."""
    settings = make_spec(**choices).config["trainer"]
    specs = []
    for r in range(2):
        numbers = {key: values[r] for key, values in EVERYTHING.items() if key.removeprefix("trainer.") in settings}
        specs.append(make_spec(SMALL | {"seed": r} | numbers | (structural or {}), **choices))
    # asked once, when parameters are laid side by side, before anything is recorded
    monkeypatch.setattr(torch, "equal", lambda a, b: True)
    ensemble = Ensemble(specs, "meta")
    ensemble._iterate(ensemble.batch(0))
    return ensemble


STRUCTURES: list[tuple[dict[str, Any], dict[str, str]]] = [
    *[({}, {"trainer": trainer, "task": task}) for trainer in MEMBERS["trainer"] for task in TASKS],
    *[({}, {"trainer": "tptt", "optimizer": optimizer}) for optimizer in OPTIMIZERS],
    *[({"model.activation": activation}, {"trainer": "tptt"}) for activation in ("sigmoid", "relu")],
    ({"trainer.phases": "random"}, {"trainer": "tptt"}),
    ({"trainer.targets": "absolute", "trainer.reading": "paper"}, {"trainer": "tptt"}),
    *[({"trainer.reading": "dai2021"}, {"trainer": "tptt_many", "task": task}) for task in ("adding", "copy_memory")],
    ({"trainer.truncate": 3, "trainer.phases": "random"}, {"trainer": "tptt_many"}),
    ({"trainer.targets": "absolute"}, {"trainer": "tptt_many"}),
    ({"trainer.force": True, "trainer.targets": "absolute", "trainer.loss": "log_penalty"}, {"trainer": "lra"}),
    (
        {"trainer.gradient": "through_time", "trainer.inner": "literal", "trainer.omega_on": "released"},
        {"trainer": "lra", "task": "adding"},
    ),
    ({"trainer.gradient": "released", "trainer.inner": "literal"}, {"trainer": "lra"}),
    ({"trainer.first_loss": False, "trainer.omega_on": "weights"}, {"trainer": "lra", "task": "adding"}),
    ({"model.activation": "relu", "trainer.last": "printed"}, {"trainer": "lra"}),
]


@pytest.mark.parametrize(("structural", "choices"), STRUCTURES, ids=str)
def test_an_iteration_asks_the_device_for_nothing_and_brings_nothing_from_the_host(
    monkeypatch: pytest.MonkeyPatch, structural: dict[str, Any], choices: dict[str, str]
) -> None:
    ensemble = ensemble_of(monkeypatch, structural, **choices)
    batch = ensemble.batch(1)
    monkeypatch.setattr(torch, "tensor", refuse)
    monkeypatch.setattr(torch.Tensor, "new_tensor", refuse)
    with FromHost():
        ensemble._iterate(batch)
    assert {w.device.type for w in ensemble.state.flat().values()} == {"meta"}


def test_the_checks_of_this_file_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = ensemble_of(monkeypatch, trainer="tptt")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        bool(ensemble.loss_sum.sum() > 0)
    with FromHost(), pytest.raises(AssertionError, match="copies from the host"):
        torch.zeros(2).to("meta")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        ensemble.state.params["W_hh"][ensemble.loss_sum > 0]


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_is_made_on_the_device(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    ensemble = ensemble_of(monkeypatch, task=task, trainer="tptt")
    positions = ensemble.positions
    with FromHost():
        batches = ensemble.batches(positions, 3)
    assert {batch.inputs.device.type for batch in batches} == {"meta"}


def test_a_batch_takes_over_the_values_of_another() -> None:
    ensemble = Ensemble([make_spec({"task.T": 20, "seed": seed}, task="adding") for seed in range(2)])
    static = ensemble.batch(0).clone()
    kept: Batch = ensemble.batch(1)
    static.copy_(kept)
    assert torch.equal(static.inputs, kept.inputs)
    assert torch.equal(static.targets, kept.targets)
    assert torch.equal(static.start, kept.start)


def test_the_gradient_of_a_look_up_is_the_same_by_products() -> None:
    """On a GPU it is a product, because an indexed sum there adds in another order every time."""
    tokens = torch.randint(6, (3, 20, 5), generator=torch.Generator().manual_seed(0))
    d = torch.randn(3, 20, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one_hot = torch.nn.functional.one_hot(tokens, 6).double()
    expected = torch.einsum("rtbi,rtbh->rih", one_hot, d)
    assert torch.allclose(lookup_gradient(tokens, d, 6), expected, rtol=1e-12)
