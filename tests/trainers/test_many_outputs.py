"""Merged targets of dai2021 (eq. 18 to 24), their truncation and shrinking, and iterations of G alone."""

from __future__ import annotations

from math import tanh
from typing import Any

import pytest
import torch
from conftest import make_spec
from reference import SIGMA, encode, recorded_gradients
from test_hand import tiny
from torch import Tensor

from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

SMALL = {"dtype": "float64", "model.H": 6, "train.batch_size": 4, "task.T": 12, "trainer.alpha_i": 2.0}


def ensemble_of(runs: int = 1, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    choices = {"task": "sequence_expansion", "trainer": "tptt_many"} | choices
    return Ensemble([make_spec(SMALL | {"seed": r} | (changes or {}), **choices) for r in range(runs)])


def perturb(ensemble: Ensemble) -> None:
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))


def displacements(ensemble: Ensemble, batch: Batch) -> Tensor:
    """h_hat_t - h_t [R, T, B, H] at the present parameters."""
    states = ensemble.model.forward(ensemble.state.params, batch)
    return ensemble.trainer.targets(
        ensemble.state.params, states, ensemble.model.readout(ensemble.state.params, states).dh
    ).clone()


# ---- by hand: one unit, three steps, an output at each; weights and x = (1, 0.5) as in test_hand, x_3 = -1

ALPHA_I = 0.25
H_1 = tanh(0.5 * 1.0 + 0.1)
H_2 = tanh(0.5 * 0.5 + 0.8 * H_1 + 0.1)
H_3 = tanh(0.5 * -1.0 + 0.8 * H_2 + 0.1)
# y = 2 h - 0.1; E_t = (y_t - z_t)^2 with z = (0.2, 0.3, -0.4); dE_t/dh_t = 2 (y_t - z_t) * 2
E_1, E_2, E_3 = (
    -ALPHA_I * 2 * (2 * h - 0.1 - z) * 2 for h, z in ((H_1, 0.2), (H_2, 0.3), (H_3, -0.4))
)  # Eq. 20 and 21


def dtp(x: float, h: float, h_hat: float, h_before: float) -> float:
    """Eq. 19 with G = tanh(0.5 x + 0.6 h + 0.2)."""
    return tanh(0.5 * x + 0.6 * h_hat + 0.2) + (h_before - tanh(0.5 * x + 0.6 * h + 0.2))


HAT_3 = H_3 + E_3
HAT_2 = dtp(-1.0, H_3, HAT_3, H_2) + E_2  # Eq. 22
HAT_1 = dtp(0.5, H_2, HAT_2, H_1) + E_1
# truncate = 2: T - t is a multiple of 2 at t = 3 and t = 1; the target of step 1 is its own
CUT_1 = H_1 + E_1
# shrink = 0.5: half of what was carried arrives
HALF_2 = H_2 + 0.5 * (dtp(-1.0, H_3, HAT_3, H_2) - H_2) + E_2
HALF_1 = H_1 + 0.5 * (dtp(0.5, H_2, HALF_2, H_1) - H_1) + E_1


@pytest.mark.parametrize("targets", ["displacement", "absolute"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (HAT_1, HAT_2, HAT_3)),
        ({"trainer.truncate": 2}, (CUT_1, HAT_2, HAT_3)),
        ({"trainer.truncate": 1}, (H_1 + E_1, H_2 + E_2, HAT_3)),
        ({"trainer.shrink": 0.5}, (HALF_1, HALF_2, HAT_3)),
    ],
)
def test_merged_targets_by_hand(targets: str, changes: dict[str, Any], expected: tuple[float, ...]) -> None:
    ensemble, _ = tiny("tptt_many", **{"trainer.targets": targets} | changes)
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0], [-1.0, 0.0]], dtype=torch.float64).view(1, 3, 1, 2)
    batch = Batch(x, torch.tensor([0.2, 0.3, -0.4], dtype=torch.float64).view(1, 3, 1, 1))
    delta = displacements(ensemble, batch).flatten().tolist()
    assert delta == pytest.approx([hat - h for hat, h in zip(expected, (H_1, H_2, H_3), strict=True)], rel=1e-12)
    g = recorded_gradients(ensemble, batch)
    # Eq. 23 and 24, B = H = 1: dMSE/da_t = 2 (h_t - h_hat_t) (1 - h_t^2); W_xh on the same local losses
    d = [2 * (h - hat) * (1 - h * h) for h, hat in zip((H_1, H_2, H_3), expected, strict=True)]
    assert g["W_hh"].item() == pytest.approx(d[1] * H_1 + d[2] * H_2, rel=1e-12)
    assert g["b_h"].item() == pytest.approx(sum(d), rel=1e-12)
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d[0] * 1.0 + d[1] * 0.5 - d[2] * 1.0, rel=1e-12)


# ---- against autograd


def expected_targets(ensemble: Ensemble, batch: Batch, r: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Inputs, states h_0 .. h_T and targets (index 0 unused) of run r, by eq. 13 to 22 on absolute targets."""
    config = ensemble.specs[r].config
    rule, sigma = config["trainer"], SIGMA[config["model"]["activation"]]
    p = {name: w[r] for name, w in ensemble.state.params.items()}
    x, z = list(encode(batch, ensemble).inputs[r]), batch.targets[r]
    T, S = len(x), len(z)
    start = torch.zeros(x[0].shape[0], dtype=torch.int64) if batch.start is None else batch.start[r]
    h = [torch.zeros(x[0].shape[0], p["b_h"].shape[0], dtype=torch.float64)]
    for t in range(1, T + 1):
        h.append(sigma(x[t - 1] @ p["W_xh"] + h[-1] @ p["W_hh"] + p["b_h"]) * (t > start)[:, None])

    def G(x_t: Tensor, h_t: Tensor) -> Tensor:
        return sigma(x_t @ p["W_xh"] + h_t @ p["V_hh"] + p["c_h"])

    h_hat = [torch.zeros_like(h[0])] * (T + 1)
    for t in range(T, 0, -1):
        own = torch.zeros_like(h[t])
        if t > T - S:
            leaf = h[t].clone().requires_grad_()
            y = leaf @ p["W_hy"] + p["b_y"]
            z_t = z[t - T + S - 1]
            E_t = (
                torch.nn.functional.cross_entropy(y, z_t)
                if ensemble.task.readout == "softmax"
                else (y - z_t).square().sum() / len(y)
            )
            own = -rule["alpha_i"] * torch.autograd.grad(E_t, leaf)[0]
        carried = torch.zeros_like(h[t])
        if t < T and (rule["truncate"] is None or (T - t) % rule["truncate"]):
            back = G(x[t], h_hat[t + 1])
            if rule["difference_correction"]:
                back = back + h[t] - G(x[t], h[t + 1])
            carried = rule["shrink"] * (back - h[t])
        h_hat[t] = h[t] + (carried + own) * (t > start)[:, None]
    return x, h, h_hat


VARIANTS: list[dict[str, Any]] = [
    {},
    {"trainer.truncate": 5},
    {"trainer.shrink": 0.7},
    {"trainer.truncate": 3, "trainer.shrink": 0.9, "trainer.targets": "absolute"},
    {"trainer.truncate": 4, "trainer.difference_correction": False},
    {"trainer.shrink": 0.6, "trainer.difference_correction": False, "trainer.targets": "absolute"},
    {"trainer.truncate": 4, "trainer.shrink": 0.5, "model.activation": "sigmoid"},
]


@pytest.mark.parametrize("task", ["copy_memory", "sequence_expansion", "adding"])
@pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: ",".join(f"{k.split('.')[1]}={x}" for k, x in v.items()) or "plain"
)
def test_targets_and_local_gradients_follow_their_equations(task: str, variant: dict[str, Any]) -> None:
    ensemble = ensemble_of(2, {"task.T": 23 if task == "adding" else 12} | variant, task=task)
    perturb(ensemble)
    batch = ensemble.batch(0)
    delta, found = displacements(ensemble, batch), recorded_gradients(ensemble, batch)
    for r in range(2):
        x, h, h_hat = expected_targets(ensemble, batch, r)
        expected = torch.stack([h_hat[t] - h[t] for t in range(1, len(h))])
        assert (delta[r] - expected).abs().max() < 1e-9 * expected.abs().max()
        w = {name: ensemble.state.params[name][r].clone().requires_grad_() for name in ("W_xh", "W_hh", "b_h")}
        sigma = SIGMA[ensemble.specs[r].config["model"]["activation"]]
        start = torch.zeros(h[0].shape[0], dtype=torch.int64) if batch.start is None else batch.start[r]
        local = torch.zeros((), dtype=torch.float64)
        for t in range(1, len(h)):
            F = sigma(x[t - 1] @ w["W_xh"] + h[t - 1] @ w["W_hh"] + w["b_h"])
            local = local + ((F - h_hat[t]) * (t > start)[:, None]).square().mean()
        for name, g in zip(w, torch.autograd.grad(local, list(w.values())), strict=True):
            assert (found[name][r] - g).abs().max() < 1e-9 * g.abs().max(), name


# ---- limiting cases


def trained(ensemble: Ensemble, steps: int = 6) -> dict[str, Tensor]:
    for _ in range(steps):
        ensemble.advance()
    return ensemble.state.flat() | {"loss": ensemble.loss_sum}


PLAIN = {"trainer.wxh": "local", "trainer.alpha_f": 0.05, "trainer.alpha_g": 0.01}


@pytest.mark.parametrize("task", ["copy_memory", "sequence_expansion", "temporal_order", "adding"])
@pytest.mark.parametrize("targets", ["displacement", "absolute"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_truncation_shrinking_and_wait_it_is_tptt_bit_for_bit(task: str, targets: str, dtype: str) -> None:
    shared = {"task.T": 12, "dtype": dtype, "trainer.targets": targets} | PLAIN
    expected = trained(ensemble_of(2, shared, task=task, trainer="tptt"))
    for off in ({}, {"trainer.truncate": 32}, {"trainer.shrink": 1.0, "trainer.g_first": 0}):
        found = trained(ensemble_of(2, shared | off, task=task))
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_truncated_at_every_step_each_output_pulls_its_own_state_alone() -> None:
    ensemble = ensemble_of(2, {"trainer.truncate": 1})
    perturb(ensemble)
    batch = ensemble.batch(0)
    states = ensemble.model.forward(ensemble.state.params, batch)
    dh = ensemble.model.readout(ensemble.state.params, states).dh
    assert torch.equal(displacements(ensemble, batch), dh * -(2.0 * 12))  # dE/dh_t = (dE_t/dh_t)/T
    shrunk = ensemble_of(2, {"trainer.shrink": 0.0})
    perturb(shrunk)
    assert torch.equal(displacements(shrunk, batch), displacements(ensemble, batch))


@pytest.mark.parametrize("n", [1, 3, 11, 12])
def test_truncation_carries_the_last_output_over_fewer_than_n_steps(n: int) -> None:
    ensemble = ensemble_of(changes={"trainer.truncate": n}, task="temporal_order")
    reached = displacements(ensemble, ensemble.batch(0)).abs().amax((0, 2, 3)) > 0
    assert reached.tolist() == [t > 12 - n for t in range(1, 13)]


@pytest.mark.parametrize("targets", ["displacement", "absolute"])
def test_a_small_target_shrinks_by_the_factor_at_each_step(targets: str) -> None:
    """Small displacements are carried linearly: s at each step is s^(T - t) at step t."""
    small = {"trainer.alpha_i": 1e-5, "trainer.targets": targets}
    whole, shrunk = (ensemble_of(changes=small | {"trainer.shrink": s}, task="temporal_order") for s in (1.0, 0.8))
    batch = whole.batch(0)
    powers = 0.8 ** torch.arange(11, -1, -1, dtype=torch.float64).view(1, 12, 1, 1)
    expected = displacements(whole, batch) * powers
    assert torch.allclose(displacements(shrunk, batch), expected, rtol=1e-3, atol=1e-9 * expected.abs().max())


# ---- G first

F_OWN = ("W_xh", "W_hh", "b_h", "W_hy", "b_y")


@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
def test_f_stands_still_while_g_learns_first(optimizer: str) -> None:
    """Two runs that wait for 2 and for 4 iterations, looked at after three: parameters and slots."""
    runs = [make_spec(SMALL | {"trainer.g_first": n}, trainer="tptt_many", optimizer=optimizer) for n in (2, 4)]
    ensemble = Ensemble(runs)
    before = {name: value.clone() for name, value in ensemble.state.flat().items()}
    for _ in range(3):
        ensemble.advance()
    for name, value in ensemble.state.flat().items():
        own = name.split("/")[1] in F_OWN
        stands = [torch.equal(value[r], before[name][r]) for r in range(2)]
        assert stands == ([False, True] if own else [False, False]), name


def test_after_the_wait_f_begins_as_if_new() -> None:
    """F of a run that waited is that of a run which starts with the inverse that was learnt meanwhile."""
    waited = ensemble_of(changes={"trainer.g_first": 3}, optimizer="adam")
    for _ in range(3):
        waited.advance()
    state = type(waited.state).from_flat({name: value.clone() for name, value in waited.state.flat().items()})
    at_once = Ensemble([waited.specs[0].replace({"trainer.g_first": 0})], state=state, positions=[3])
    for _ in range(3):
        waited.advance()
        at_once.advance()
    for name, value in waited.state.flat().items():
        assert torch.equal(value, at_once.state.flat()[name]), name


@pytest.mark.parametrize("p_g", [0.0, 1.0])
def test_with_random_phases_too_the_first_iterations_are_gs(p_g: float) -> None:
    ensemble = ensemble_of(changes={"trainer.g_first": 1, "trainer.phases": "random", "trainer.p_g": p_g})
    moved = []
    for _ in range(2):
        before = {name: w.clone() for name, w in ensemble.state.params.items()}
        ensemble.advance()
        moved.append({name for name, w in ensemble.state.params.items() if not torch.equal(w, before[name])})
    assert moved[0] == {"V_hh", "c_h"}
    assert moved[1] == ({"V_hh", "c_h"} if p_g else set(F_OWN))
