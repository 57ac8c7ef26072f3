"""One update: it is the iteration that a run makes, and two of them are compared as manchev2020 does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MEMBERS, make_spec
from quick_runs import QUICK, quick
from reference import bptt_gradients
from torch import Tensor

from tprnn.config import RunSpec
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.protocols.evaluate import Network, load
from tprnn.protocols.update import Update, update
from tprnn.store import Store
from tprnn.sweep.run import run_all

FIRST = {"train.max_iterations": 1, "train.validation_size": 10}


def at_start(spec: RunSpec) -> Network:
    """The network of a run before its first iteration."""
    return Network(spec, {name: w[0].clone() for name, w in Ensemble([spec]).state.params.items()})


def trained(spec: RunSpec) -> Network:
    run_all([spec])
    return load(Store(spec.execution["outputs"]).folder(spec).path)


def of(**changes: list[float]) -> Update:
    return Update(make_spec(), 0.0, {name: torch.tensor(values) for name, values in changes.items()})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_an_update_is_the_first_iteration_of_a_run(trainer: str, dtype: str, tmp_path: Path) -> None:
    changes = FIRST | {"dtype": dtype}
    spec = quick(tmp_path, changes, trainer=trainer, task="copy_memory" if trainer == "tptt_many" else "temporal_order")
    before, after = at_start(spec), trained(spec)
    found = update(before, f"dtype={dtype}", batch=Ensemble([spec]).batch(0))
    assert found.changes.keys() == after.params.keys()
    for name, w in after.params.items():
        assert torch.equal(found.changes[name], w - before.params[name]), name
    assert any(change.any() for change in found.changes.values())


def test_with_sgd_it_is_the_rate_times_the_gradient() -> None:
    spec = make_spec(QUICK | {"dtype": "float64", "trainer.alpha": 0.25})
    ensemble = Ensemble([spec])
    batch = ensemble.batch(3)
    found = update(at_start(spec), "optimizer=sgd", batch=batch)
    for name, gradient in bptt_gradients(ensemble, batch, 0).items():
        torch.testing.assert_close(found.changes[name], -0.25 * gradient, rtol=1e-9, atol=1e-12)


def test_lines_choose_the_rule_and_what_they_leave_is_the_runs_own() -> None:
    spec = make_spec(QUICK | {"trainer.alpha": 0.125, "optimizer.momentum": 0.5, "trainer.freeze": ["b_h"]})
    network = at_start(spec)
    batch = network.sample(20)
    same = update(network, "dtype=float32", batch=batch).spec
    assert same.signature == spec.signature
    faster = update(network, "trainer.alpha=0.25", batch=batch)
    assert faster.spec.config["trainer"] == {**spec.config["trainer"], "alpha": 0.25}
    other = update(
        network, "trainer=tptt", "trainer.tptt.alpha_f=1e-3", "trainer.rate_factors={W_hh: 0.5}", batch=batch
    )
    told = other.spec.config
    assert (told["trainer"]["name"], told["trainer"]["alpha_f"], told["trainer"]["freeze"]) == ("tptt", 1e-3, [])
    assert told["trainer"]["rate_factors"] == {"W_hh": 0.5}
    assert told["optimizer"] == spec.config["optimizer"]
    assert not update(network, batch=batch).changes["b_h"].any()
    assert other.changes["b_h"].any()


def test_parameters_that_the_network_lacks_begin_as_in_a_run_of_its_seed() -> None:
    """And those that it has are its own."""
    lines = ("trainer=tptt", "trainer.alpha_g=0.5")
    backprop = at_start(make_spec(QUICK | {"seed": 5}))
    batch = backprop.sample(20)
    begun = at_start(make_spec(QUICK | {"seed": 5}, trainer="tptt"))
    found, expected = update(backprop, *lines, batch=batch), update(begun, *lines, batch=batch)
    assert found.changes["V_hh"].any()
    assert all(torch.equal(found.changes[name], expected.changes[name]) for name in expected.changes)
    moved = Network(begun.spec, begun.params | {"V_hh": begun.params["V_hh"] + 0.1})
    assert not torch.equal(update(moved, *lines, batch=batch).changes["V_hh"], expected.changes["V_hh"])
    assert "V_hh" not in update(moved, "trainer=bptt", batch=batch).changes


def test_a_change_that_float32_would_round_away_is_whole() -> None:
    network = at_start(make_spec(QUICK, trainer="tptt"))
    batch = network.sample(20)

    def turned(dtype: str) -> float:
        large, small = (update(network, dtype, f"trainer.alpha_f={a}", batch=batch) for a in (1e-1, 1e-6))
        return large.angles(small)["W_hh"]

    assert turned("dtype=float64") < 1e-3
    assert not turned("dtype=float32") < 10


def test_what_a_rule_draws_is_that_of_the_iteration() -> None:
    network = at_start(make_spec(QUICK | {"trainer.noise": 0.5}, trainer="tptt"))
    batch = network.sample(20)

    def change(iteration: int) -> Tensor:
        return update(network, batch=batch, iteration=iteration).changes["V_hh"]

    assert torch.equal(change(7), change(7))
    assert not torch.equal(change(7), change(8))


def test_network_batch_and_pytorch_stay_as_they_are(tmp_path: Path) -> None:
    network = trained(quick(tmp_path, FIRST))
    params = {name: w.clone() for name, w in network.params.items()}
    batch = network.sample(20)
    kept = batch.clone()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        update(network, "trainer=tptt", batch=batch)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(w, params[name]) for name, w in network.params.items())
    assert torch.equal(batch.inputs, kept.inputs)
    assert torch.equal(batch.targets, kept.targets)


def test_a_run_stands_for_its_network(tmp_path: Path) -> None:
    spec = quick(tmp_path, FIRST)
    network = trained(spec)
    batch = network.sample(5)
    path = Store(spec.execution["outputs"]).folder(spec).path
    assert update(str(path), batch=batch).loss == update(network, batch=batch).loss


@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
@pytest.mark.parametrize("degrees", [0.0, 1e-6, 30.0, 90.0, 135.0, 180.0])
def test_angles_are_right_at_every_size(degrees: float, scale: float) -> None:
    turned = [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
    one = Update(make_spec(), 0.0, {"w": torch.tensor([[scale, 0.0]], dtype=torch.float64)})
    two = Update(make_spec(), 0.0, {"w": torch.tensor([turned], dtype=torch.float64)})
    assert one.angles(two)["w"] == pytest.approx(degrees, rel=1e-9, abs=1e-12)
    assert one.ratios(two)["w"] == pytest.approx(scale)


def test_angles_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    cosine = (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())
    expected = math.degrees(math.acos(float(cosine)))
    one, two = (Update(make_spec(), 0.0, {"W_hh": w}) for w in (a, b))
    assert one.angles(two)["W_hh"] == pytest.approx(expected)


def test_side_by_side_are_the_parameters_that_both_have() -> None:
    one, two = of(W_hh=[3.0, 4.0], b_h=[0.0], V_hh=[1.0]), of(b_h=[2.0], W_hh=[0.0, 10.0])
    table = one.beside(two)
    assert list(table.index) == ["W_hh", "b_h"]
    assert list(table.columns) == ["norm", "other", "ratio", "angle"]
    assert table.loc["W_hh"].tolist() == pytest.approx([5.0, 10.0, 0.5, math.degrees(math.acos(0.8))])
    assert table.loc["b_h", ["norm", "other", "ratio"]].tolist() == [0.0, 2.0, 0.0]
    assert math.isnan(table.loc["b_h", "angle"])
    assert math.isnan(two.ratios(one)["b_h"])


def test_networks_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(UserError, match=r"^W_hh: updates of different networks, \[1\] and \[2\]$"):
        of(W_hh=[1.0]).beside(of(W_hh=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["trainer=tppt"], "trainer: no 'tppt'; nearest: tptt"),
        (["trainer.alpah=1"], "unknown key 'trainer.alpah' of trainer=bptt; nearest: trainer.alpha"),
        (["trainer=tptt", "trainer.alpha=1"], "unknown key 'trainer.alpha' of trainer=tptt; nearest: trainer.alpha_i"),
        (["trainer=tptt,bptt"], "'trainer=tptt,bptt' holds several values"),
        (["trainer.tptt.alpha_f=1"], "no point has trainer=tptt"),
        (["optimizer.momentum=2"], "optimizer.momentum: expected at most 1, got 2"),
        (["task.T=20"], "tprnn.update: 'task.T=20': an update is of the network's own task"),
        (["outputs=here"], "give trainer=NAME"),
        ([{"trainer": "tptt"}], "give trainer=NAME"),
    ],
    ids=str,
)
def test_lines_that_make_no_update_are_told_in_one_line(lines: list[Any], told: str) -> None:
    network = at_start(make_spec(QUICK))
    with pytest.raises(UserError) as caught:
        update(network, *lines, batch=network.sample(2))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rule_that_cannot_train_the_network_says_so() -> None:
    network = at_start(make_spec(QUICK | {"model.H": 20}, task="copy_memory", trainer="tptt_many"))
    with pytest.raises(UserError, match="W_xhh"):
        update(network, "trainer.freeze=[W_xhh]", batch=network.sample(2))
