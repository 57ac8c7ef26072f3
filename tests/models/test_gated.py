"""Networks with gates: gradients of autograd, torch.nn's networks given their weights, starts, stacks, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_spec
from neighbours import neighbours
from quick_runs import After
from reference import global_loss, params_of
from torch import Tensor
from torch.nn.functional import one_hot

from tprnn import cli
from tprnn.compose import compose
from tprnn.core.activations import Relu
from tprnn.core.init import INITIALISATIONS
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.loop import work_through
from tprnn.engine.queue import Queue
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.tasks.base import Batch
from tprnn.testing import check_alive, check_permuted, check_stacked

NETWORKS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
H = 7
SMALL = {"dtype": "float64", "model.H": H, "train.batch_size": 5, "task.T": 12}
# task, whether all steps have an output: tokens, features of unequal lengths, several outputs, tokens with all outputs
BATCHES = [("temporal_order", False), ("adding", False), ("copy_memory", False), ("temporal_order", True)]

gated = pytest.mark.parametrize("network", NETWORKS)


def ensemble_of(network: str, runs: int = 1, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    """Runs whose parameters are moved off their start, so that no term is zero by chance."""
    specs = [make_spec(SMALL | {"seed": 3 + r} | (changes or {}), model=network, **choices) for r in range(runs)]
    ensemble = Ensemble(specs)
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(0.3 * torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype))
    return ensemble


def batch_of(ensemble: Ensemble, every: bool) -> Batch:
    batch = ensemble.batch(0)
    if not batch.tokens:  # sequences of unequal length, one of them whole
        start = torch.tensor([3, 0, 5, 1, 4]).roll(1).repeat(len(ensemble.specs), 1)
        return Batch(batch.inputs, batch.targets, start, empty=5)
    if not every:
        return batch
    generator = torch.Generator().manual_seed(0)
    return Batch(batch.inputs, torch.randint(0, ensemble.task.outputs, batch.inputs.shape, generator=generator))


def gradients_of(ensemble: Ensemble, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss [R], states [R, T + 1, B, H] and gradients [R, ...], all by ours."""
    model, params = ensemble.model, ensemble.state.params
    states = model.forward(params, batch)
    reading = model.readout(params, states)
    da = model.adjoint(params, states, reading.dh)
    found = model.gradients(states, da, model.parameters) | model.readout_gradients(states, reading)
    return reading.loss, states.h, found


def lstm_step(p: dict[str, Tensor], x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x @ p["W_xh"] + h @ p["W_hh"] + p["b_h"]).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(p: dict[str, Tensor], x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    x_r, x_z, x_n = (x @ p["W_xh"] + p["b_h"]).chunk(3, -1)
    h_r, h_z, h_n = (h @ p["W_hh"]).chunk(3, -1)
    n = (x_n + (x_r + h_r).sigmoid() * (h_n + p["b_hn"])).tanh()
    z = (x_z + h_z).sigmoid()
    return (1.0 - z) * n + z * h, c


def by_autograd(network: str, ensemble: Ensemble, batch: Batch, r: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of run r by plain formulas; before its start a sequence has states 0."""
    p, step = params_of(ensemble, r), {"lstm": lstm_step, "gru": gru_step}[network]
    x = batch.inputs[r]
    x = one_hot(x, ensemble.task.inputs).to(p["W_hh"].dtype) if batch.tokens else x
    h = c = torch.zeros(x.shape[1], H, dtype=x.dtype)
    states = []
    for t in range(len(x)):
        h, c = step(p, x[t], h, c)
        if batch.start is not None:
            inside = (t >= batch.start[r])[:, None]
            h, c = torch.where(inside, h, 0.0), torch.where(inside, c, 0.0)
        states.append(h)
    E = global_loss(p, states, batch.targets[r], ensemble.task.readout)
    return E.detach(), dict(zip(p, torch.autograd.grad(E, list(p.values())), strict=True))


@gated
@pytest.mark.parametrize(("task", "every"), BATCHES)
@pytest.mark.parametrize("runs", [1, 2])
def test_gradients_are_those_of_autograd(network: str, task: str, every: bool, runs: int) -> None:
    ensemble = ensemble_of(network, runs, task=task)
    batch = batch_of(ensemble, every)
    loss, _, found = gradients_of(ensemble, batch)
    for r in range(runs):
        E, expected = by_autograd(network, ensemble, batch, r)
        torch.testing.assert_close(loss[r], E, rtol=1e-12, atol=1e-12)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name][r], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@gated
def test_gradients_are_those_of_autograd_where_a_pass_has_several_pieces(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = ensemble_of(network, task="adding")
    batch = batch_of(ensemble, every=False)
    _, _, whole = gradients_of(ensemble, batch)
    monkeypatch.setattr("tprnn.core.work._CHUNK", 5 * 4 * H * 3)  # three steps
    _, expected = by_autograd(network, ensemble, batch, 0)
    _, _, found = gradients_of(ensemble, batch)
    for name, value in expected.items():
        torch.testing.assert_close(found[name][0], value, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[name], whole[name], rtol=1e-12, atol=1e-14)


@gated
def test_chosen_gradients_are_those_of_all(network: str) -> None:
    ensemble = ensemble_of(network)
    batch, model = ensemble.batch(0), ensemble.model
    _, _, found = gradients_of(ensemble, batch)
    states = model.forward(ensemble.state.params, batch)
    da = model.adjoint(ensemble.state.params, states, model.readout(ensemble.state.params, states).dh)
    for name in model.parameters:
        (chosen,) = model.gradients(states, da, [name]).items()
        assert chosen[0] == name
        torch.testing.assert_close(chosen[1], found[name], rtol=1e-12, atol=1e-14)


@gated
def test_nothing_is_learnt_before_a_sequence_starts(network: str) -> None:
    """Other numbers before the start change neither states nor gradients, and the states there are 0."""
    ensemble = ensemble_of(network, task="adding")
    batch = batch_of(ensemble, every=False)
    assert batch.start is not None
    steps = torch.arange(batch.T)[:, None]
    before = steps < batch.start[0]
    other = batch.inputs.clone()
    other[0][before] += 3.0
    loss, h, found = gradients_of(ensemble, batch)
    h, found = h.clone(), {name: g.clone() for name, g in found.items()}
    assert not h[0, 1:][before].any()
    assert h[0, 1:][~before].all()
    again = gradients_of(ensemble, Batch(other, batch.targets, batch.start, batch.empty))
    assert torch.equal(again[0], loss)
    assert torch.equal(again[1], h)
    for name, g in found.items():
        torch.testing.assert_close(again[2][name], g, rtol=1e-12, atol=1e-15)


@gated
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", ["temporal_order", "copy_memory"])
def test_it_is_the_network_of_torch_given_its_weights(network: str, task: str, dtype: str) -> None:
    """States and gradients to rounding; torch's second bias is 0 where ours has one."""
    ensemble = ensemble_of(network, task=task, changes={"dtype": dtype})
    batch, number = ensemble.batch(0), getattr(torch, dtype)
    _, h, found = gradients_of(ensemble, batch)
    p = params_of(ensemble, 0)
    theirs = NETWORKS[network](ensemble.task.inputs, H, dtype=number)
    second = torch.zeros_like(p["b_h"])
    if network == "gru":
        second = torch.cat([second[: 2 * H], p["b_hn"]])
    weights = {"weight_ih_l0": p["W_xh"].T, "weight_hh_l0": p["W_hh"].T, "bias_ih_l0": p["b_h"], "bias_hh_l0": second}
    x = one_hot(batch.inputs[0], ensemble.task.inputs).to(number)
    states = torch.func.functional_call(theirs, weights, (x,))[0]
    E = global_loss(p, list(states.unbind(0)), batch.targets[0], ensemble.task.readout)
    expected = torch.autograd.grad(E, list(p.values()))
    exact = {"rtol": 1e-9, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-6}
    torch.testing.assert_close(h[0, 1:], states.detach(), **exact)
    for name, value in zip(p, expected, strict=True):
        torch.testing.assert_close(found[name][0], value, **exact)


# ---- how it starts


@gated
def test_every_block_of_an_orthogonal_start_is_orthogonal_and_drawn_by_itself(network: str) -> None:
    model = Ensemble([make_spec(SMALL, model=network)]).model
    W = model.init([0, 1])
    blocks = [block for r in (0, 1) for block in W["W_hh"][r].split(H, -1)]
    for k, block in enumerate(blocks):
        torch.testing.assert_close(block @ block.T, torch.eye(H, dtype=torch.float64), rtol=0.0, atol=1e-12)
        for other in blocks[:k]:
            assert (block - other).norm() > 1.0
    for block in W["W_xh"][0].split(H, -1):  # six inputs, seven units: orthonormal rows
        torch.testing.assert_close(block @ block.T, torch.eye(len(block), dtype=torch.float64), rtol=0.0, atol=1e-12)
    alone = model.init([1])
    for name, w in W.items():
        torch.testing.assert_close(w[1:], alone[name], rtol=1e-12, atol=1e-14)


@gated
@pytest.mark.parametrize("init", INITIALISATIONS)
def test_starts_are_those_that_the_yaml_says(network: str, init: str) -> None:
    ensemble = Ensemble([make_spec(SMALL | {"model.init": init, "model.H": 60}, model=network)])
    params = {name: w[0] for name, w in ensemble.state.params.items()}
    blocks = params["W_hh"].split(60, -1)
    one = torch.eye(60, dtype=torch.float64)
    if init == "gaussian":
        assert all(block.std().item() == pytest.approx(0.1, rel=0.1) for block in blocks)  # six standard errors
    elif init == "identity_whh":
        assert all(torch.equal(block, one) for block in blocks)
    else:
        assert all((block @ block.T - one).abs().max() < 1e-12 for block in blocks)
    if init != "orthogonal":
        assert params["W_xh"].std().item() == pytest.approx(0.1, rel=0.15)
    assert not any(w.any() for name, w in params.items() if name.startswith("b"))


def test_the_forget_gate_alone_starts_at_its_bias() -> None:
    params = Ensemble([make_spec(SMALL | {"model.forget_bias": 1.5}, model="lstm")]).state.params
    assert [part.unique().tolist() for part in params["b_h"][0].split(H)] == [[0.0], [1.5], [0.0], [0.0]]
    assert make_spec(model="lstm").config["model"]["forget_bias"] == 0.0


def test_the_irnn_is_a_simple_network_of_rectified_units_from_the_identity() -> None:
    irnn = make_spec(SMALL, model="irnn")
    plain = make_spec(SMALL | {"model.activation": "relu", "model.init": "identity_whh"})
    one, other = (Ensemble([spec]).state.params for spec in (irnn, plain))
    assert torch.equal(one["W_hh"][0], torch.eye(H, dtype=torch.float64))
    assert all(torch.equal(w, other[name]) for name, w in one.items())
    assert isinstance(Ensemble([irnn]).model.activation, Relu)
    assert compose(["task=adding", "trainer=tptt", "model=irnn"]).config["model"]["rule"] == "srn"


# ---- as runs


@gated
@pytest.mark.parametrize("task", ["temporal_order", "adding", "copy_memory"])
def test_a_stack_of_three_is_each_run_alone(network: str, task: str) -> None:
    runs = neighbours("bptt", {"trainer.omega": 0.0}, model=network, task=task)
    check_alive(runs, 20)
    check_stacked(runs, 20)
    check_permuted(runs, 20)


@gated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_that_goes_on_has_the_bits_of_one_that_was_not_stopped(network: str, dtype: str, tmp_path: Path) -> None:
    changes = {"model.H": 9, "task.T": 10, "dtype": dtype, "train.check_every": 6, "train.max_iterations": 12}
    spec = make_spec(changes | {"train.validation_size": 12}, model=network, task="adding")
    models = []
    for name, breaks in (("straight", [100]), ("stopped", [4, 5, 100])):
        store = Store(tmp_path / name)
        for looks in breaks:
            (outcome,) = work_through(Queue([spec]), store, After(looks), lambda kind, spec, row: None)
            assert (outcome.result["status"] == "interrupted") == (looks < 100)
        model = store.folder(spec).load_model()
        assert model is not None
        models.append(model[0])
    straight, stopped = models
    assert straight.keys() == stopped.keys()
    assert all(torch.equal(w, stopped[name]) for name, w in straight.items())


@gated
def test_it_learns_temporal_order_in_float32(network: str, outputs: str, into: str) -> None:
    line = ["task=temporal_order", "task.T=10", "trainer=bptt", f"model={network}", "model.H=20", "optimizer=adam"]
    small = ["train.validation_size=1000", "train.check_every=50", "train.max_iterations=1500", "probe=none"]
    more = ["trainer.alpha=0.01", "quiet=true", "workers=1", into]
    assert cli.main(["train", *line, *small, *more]) == 0
    (path,) = Path(outputs).glob("runs/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "solved"
    assert cli.main(["evaluate", str(path.parent), "--sequences", "200", "task.T=12"]) == 0


@gated
@pytest.mark.parametrize("trainer", ["tptt", "lra", "dfa"])
def test_rules_that_need_a_simple_network_refuse_it(network: str, trainer: str) -> None:
    with pytest.raises(UserError, match=f"cannot train model={network}, which is not 'additive'; choices: srn$"):
        compose(["task=temporal_order", f"trainer={trainer}", f"model={network}"])
