"""lra against autograd in float64, against a sequence worked out by hand, and where theory knows the answer."""

from __future__ import annotations

from math import tanh
from typing import Any

import pytest
import torch
from conftest import make_spec
from lra_reference import Reference
from reference import recorded_gradients

from tprnn.core.activations import ACTIVATIONS, Shift
from tprnn.core.directions import normalizer, unit
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("recurrences")

SMALL = {"dtype": "float64", "model.H": 7, "train.batch_size": 5, "task.T": 10}
# signals that live through ten steps, and limits that some of them exceed
STRONG = {"trainer.gamma": 15.0, "trainer.K": 3, "trainer.c_0": 0.01, "trainer.c_1": 0.01}
RELEASED = {"trainer.gradient": "through_time", "trainer.inner": "literal"}
PROGRAM = RELEASED | {"trainer.gradient": "released"}


def ensemble_of(runs: int = 1, changes: dict[str, Any] | None = None, **choices: str) -> Ensemble:
    choices = {"trainer": "lra", "optimizer": "sgd"} | choices
    return Ensemble([make_spec(SMALL | {"seed": 3 + r} | (changes or {}), **choices) for r in range(runs)])


def perturb(ensemble: Ensemble) -> None:
    generator = torch.Generator().manual_seed(1)
    for w in ensemble.state.params.values():
        w.add_(0.1 * torch.randn(w.shape, generator=generator, dtype=w.dtype))


def layers(ensemble: Ensemble, batch: Batch) -> dict[str, torch.Tensor]:
    return ensemble.trainer.layers(ensemble.state, batch, 0)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("temporal_order", {}),
    ("adding", {}),
    ("temporal_order", {"trainer.inner": "literal", "trainer.last": "printed"}),
    ("adding", {"trainer.inner": "literal"}),
    ("adding", {"trainer.targets": "absolute"}),
    ("temporal_order", {"trainer.targets": "absolute", "trainer.inner": "literal"}),
    ("temporal_order", {"trainer.loss": "log_penalty", "trainer.K": 1}),
    ("adding", {"trainer.loss": "log_penalty"}),
    ("adding", {"trainer.force": True}),
    ("temporal_order", {"trainer.c_0": 0.0, "trainer.c_1": 0.0}),
    ("adding", {"trainer.omega": 0.5}),
    ("temporal_order", {"trainer.omega": 0.5, "trainer.omega_form": "ratio"}),
    ("temporal_order", {"trainer.omega": 2.0, "trainer.omega_on": "released"}),
    ("random_permutation", {"model.activation": "sigmoid", "trainer.omega": 0.5, "trainer.gamma": 100.0}),
    ("temporal_order", {"model.activation": "sigmoid", "trainer.targets": "absolute"}),
    ("temporal_order", {"model.activation": "relu", "trainer.omega": 0.5}),
    ("temporal_order", RELEASED),
    ("adding", RELEASED),
    ("temporal_order", RELEASED | {"trainer.targets": "absolute", "trainer.loss": "log_penalty"}),
    ("adding", RELEASED | {"trainer.omega": 0.5, "trainer.force": True}),
    ("temporal_order", RELEASED | {"trainer.omega": 0.5, "trainer.omega_on": "released"}),
    ("temporal_order", RELEASED | {"model.activation": "sigmoid", "trainer.c_0": 0.0, "trainer.gamma": 100.0}),
    ("temporal_order", RELEASED | {"model.activation": "relu", "trainer.gamma": 300.0}),
    ("temporal_order", {"trainer.last": "reread_unlimited"}),
    ("adding", {"trainer.first_loss": False, "trainer.inner": "literal", "trainer.last": "printed"}),
    ("adding", {"trainer.first_loss": False, "trainer.omega": 0.5, "task.T": 20}),  # of 20 and 21 steps
    ("temporal_order", {"trainer.omega": 0.5, "trainer.omega_on": "weights"}),
    ("temporal_order", {"trainer.omega": 0.5, "trainer.omega_on": "weights", "trainer.first_loss": False}),
    ("temporal_order", RELEASED | {"trainer.omega": 0.5, "trainer.omega_on": "weights"}),
    ("temporal_order", PROGRAM),
    ("adding", PROGRAM | {"trainer.last": "reread_unlimited", "trainer.force": True}),
    ("temporal_order", PROGRAM | {"trainer.omega": 0.1, "trainer.omega_on": "released"}),
    ("adding", PROGRAM | {"trainer.omega": 0.5, "trainer.omega_form": "ratio", "trainer.loss": "log_penalty"}),
    ("temporal_order", PROGRAM | {"trainer.omega": 2.0, "trainer.targets": "absolute", "trainer.c_0": 0.1}),
]


def name_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ",".join(f"{key.split('.')[1]}={x}" for key, x in value.items()) or "plain"


def assert_follows(ensemble: Ensemble, batch: Batch) -> None:
    with torch.inference_mode():
        found, shown = recorded_gradients(ensemble, batch), layers(ensemble, batch)
    for r in range(len(ensemble.specs)):
        reference = Reference(ensemble, batch, r)
        for name, expected in reference.gradients().items():
            error = (found[name][r] - expected).abs().max() / expected.abs().max()
            assert error < 1e-9, f"{name}: relative error {error:.1e}"
        tables = {
            "local_loss": {t: loss.item() for t, loss in reference.losses.items()},
            "norm_delta_h": {t: step.norm().item() for t, step in reference.delta_h.items()},
            "norm_W_hh": reference.norms("W_hh"),
            "norm_W_xh": reference.norms("W_xh"),
        }
        for name, table in tables.items():
            for t, value in table.items():
                # the absolute targets of the reference have their rounding
                assert shown[name][r, t - 1].item() == pytest.approx(value, rel=1e-6, abs=1e-13), (name, t)


@pytest.mark.parametrize(("task", "variant"), VARIANTS, ids=name_of)
def test_gradients_and_probes_are_those_of_the_algorithm(task: str, variant: dict[str, Any]) -> None:
    ensemble = ensemble_of(2, STRONG | variant, task=task)
    perturb(ensemble)
    assert_follows(ensemble, ensemble.batch(0))


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"trainer.omega": 0.5, "trainer.omega_on": "released"},
        {"trainer.last": "reread_unlimited", "trainer.first_loss": False},
        RELEASED,
        PROGRAM | {"trainer.omega": 0.5},
    ],
    ids=name_of,
)
def test_each_of_several_outputs_pulls_its_own_state(variant: dict[str, Any]) -> None:
    ensemble = ensemble_of(2, STRONG | variant)
    perturb(ensemble)
    targets = torch.randint(0, 4, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    assert_follows(ensemble, Batch(ensemble.batch(0).inputs, targets))


# ---- by hand: one unit, two steps, batch of one; x = (1, 0.5), target 0.3, linear output, E = (y - 0.3)^2

W_XH, W_HH, B_H, W_HY, B_Y, GAMMA = 0.5, 0.8, 0.1, 2.0, -0.1, 0.2
A_1 = 0.6  # 1 * 0.5 + 0 * 0.8 + 0.1
Z_1 = tanh(A_1)
A_2 = 0.35 + 0.8 * Z_1  # 0.5 * 0.5 + 0.8 z_1 + 0.1
Z_2 = tanh(A_2)


def slope(z: float) -> float:
    return 1 - z**2


# dE/da_2 = dE/dy W_hy (1 - z_2^2), y = 2 z_2 - 0.1; then once more from the moved state
STEP_1 = 2 * (2 * Z_2 - 0.4) * 2.0 * slope(Z_2)
MOVED = tanh(A_2 - 0.2 * STEP_1)
STEP_2 = 2 * (2 * MOVED - 0.4) * 2.0 * slope(MOVED)
U_2 = {"printed": -0.2 * STEP_1, "reread": -0.2 * (STEP_1 + STEP_2)}


def tiny(**changes: object) -> tuple[Ensemble, Batch]:
    base = {"dtype": "float64", "model.H": 1, "train.batch_size": 1, "task.reading": "paper", "trainer.gamma": GAMMA}
    base |= {"trainer.K": 2, "trainer.c_0": 0.0, "trainer.c_1": 0.0}
    ensemble = Ensemble(
        [make_spec(base | {f"trainer.{key}": x for key, x in changes.items()}, task="adding", trainer="lra")]
    )
    values = {"W_hh": W_HH, "b_h": B_H, "W_hy": W_HY, "b_y": B_Y}
    for name, w in ensemble.state.params.items():
        if name == "W_xh":
            w[0] = torch.tensor([[W_XH], [0.0]])  # the second input channel is unused
        else:
            w.fill_(values[name])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 2)
    return ensemble, Batch(x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("last", ["printed", "reread"])
@pytest.mark.parametrize("inner", ["literal", "fixed_target"])
def test_two_inner_steps_by_hand(last: str, inner: str) -> None:
    ensemble, batch = tiny(last=last, inner=inner)
    g = recorded_gradients(ensemble, batch)
    # L = (z_2 - z_hat_2)^2, for B = H = 1 the mean is the square itself
    z_hat_2 = tanh(A_2 + U_2[last])
    d_2 = 2 * (Z_2 - z_hat_2) * slope(Z_2)
    u = -0.2 * d_2 * 0.8 * slope(Z_1)  # the first inner step: dL/da_1 = dL/da_2 W_hh (1 - z_1^2)
    z_bar_1 = tanh(A_1 + u)
    z_bar_2 = tanh(0.35 + 0.8 * z_bar_1)  # step 2 run again
    target = Z_2 if inner == "literal" else z_hat_2
    u -= 0.2 * 2 * (z_bar_2 - target) * slope(z_bar_2) * 0.8 * slope(z_bar_1)
    d_1 = 2 * (Z_1 - tanh(A_1 + u)) * slope(Z_1)
    assert g["W_hh"].item() == pytest.approx(d_2 * Z_1, rel=1e-12)  # z_0 = 0 adds nothing
    assert g["b_h"].item() == pytest.approx(d_1 + d_2, rel=1e-12)
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d_1 * 1.0 + d_2 * 0.5, rel=1e-12)
    assert g["W_hy"].item() == pytest.approx(2 * (2 * Z_2 - 0.4) * Z_2, rel=1e-12)


def test_normalisation_by_hand() -> None:
    ensemble, batch = tiny(K=1, last="printed", c_0=0.05, c_1=0.01)
    g = recorded_gradients(ensemble, batch)
    d_2 = 2 * (Z_2 - tanh(A_2 + U_2["printed"])) * slope(Z_2)
    assert d_2 * Z_1 > 0.05  # all three gradients of step 2 are longer, and so is Delta h_1
    assert d_2 * 0.8 * slope(Z_1) > 0.01
    d_1 = 2 * (Z_1 - tanh(A_1 - 0.2 * 0.01)) * slope(Z_1)
    assert d_1 < 0.05
    assert g["W_hh"].item() == pytest.approx(0.05, rel=1e-12)
    assert g["b_h"].item() == pytest.approx(d_1 + 0.05, rel=1e-12)
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d_1 + 0.05, rel=1e-12)


def test_omega_by_hand() -> None:
    """One step back: p = g w s, so |p| / |g| = w s with s = 1 - z_1^2, whose derivatives are s and -2 w z_1 s."""
    ensemble, batch = tiny(K=1, last="printed", omega=0.5)
    g = recorded_gradients(ensemble, batch)
    d_2 = 2 * (Z_2 - tanh(A_2 + U_2["printed"])) * slope(Z_2)
    s = slope(Z_1)
    outer = 2 * (0.8 * s - 1)
    da = outer * -2 * 0.8 * Z_1 * s  # dOmega_1/da_1
    u = -0.2 * (d_2 * 0.8 * s + 0.5 * da)
    d_1 = 2 * (Z_1 - tanh(A_1 + u)) * s
    assert g["b_h"].item() == pytest.approx(d_1 + d_2 + 0.5 * da, rel=1e-12)
    assert g["W_hh"].item() == pytest.approx(d_2 * Z_1 + 0.5 * outer * s, rel=1e-12)


def test_the_released_gradient_by_hand() -> None:
    """With two steps step 1 has no loss, and that of step 2 moves z_2 and its target together: a_2 is in both."""
    ensemble, batch = tiny(K=1, last="printed", inner="literal", gradient="through_time")
    g = recorded_gradients(ensemble, batch)
    z_hat_2 = tanh(A_2 + U_2["printed"])
    d_2 = 2 * (Z_2 - z_hat_2) * (slope(Z_2) - slope(z_hat_2))
    d_1 = d_2 * 0.8 * slope(Z_1)  # through time
    assert g["W_hh"].item() == pytest.approx(d_2 * Z_1, rel=1e-12)
    assert g["b_h"].item() == pytest.approx(d_1 + d_2, rel=1e-12)


def test_no_limit_of_the_last_target_and_no_loss_of_the_first_step_by_hand() -> None:
    ensemble, batch = tiny(last="reread_unlimited", c_1=0.01, first_loss=False)
    g = recorded_gradients(ensemble, batch)
    assert STEP_1 > 0.01  # which `reread` would cut
    d_2 = 2 * (Z_2 - tanh(A_2 + U_2["reread"])) * slope(Z_2)
    assert g["W_hh"].item() == pytest.approx(d_2 * Z_1, rel=1e-12)
    assert g["b_h"].item() == pytest.approx(d_2, rel=1e-12)
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d_2 * 0.5, rel=1e-12)


def test_the_program_limits_w_hy_and_not_b_h_by_hand() -> None:
    found = {}
    for gradient in ("through_time", "released"):
        ensemble, batch = tiny(K=1, last="printed", inner="literal", gradient=gradient, c_0=0.02)
        found[gradient] = recorded_gradients(ensemble, batch)
    z_hat_2 = tanh(A_2 + U_2["printed"])
    b_h = 2 * (Z_2 - z_hat_2) * (slope(Z_2) - slope(z_hat_2)) * (0.8 * slope(Z_1) + 1)
    W_hy = 2 * (2 * Z_2 - 0.4) * Z_2
    assert min(abs(b_h), W_hy) > 0.02
    assert [found[name]["W_hy"].item() for name in found] == pytest.approx([W_hy, 0.02], rel=1e-12)
    assert [abs(found[name]["b_h"].item()) for name in found] == pytest.approx([0.02, abs(b_h)], rel=1e-12)
    assert found["released"]["W_hh"].abs().item() == pytest.approx(0.02, rel=1e-12)


# ---- where theory knows the answer


def test_a_step_of_size_one_is_backpropagation_where_all_is_linear() -> None:
    """gamma = B H / 2, K = 1, no limits, small displacements, all slopes 1 (states 0): dL_t/da_t = dE/da_t."""
    half = SMALL["model.H"] * SMALL["train.batch_size"] / 2
    numbers = {"trainer.gamma": half, "trainer.K": 1, "trainer.c_0": 0.0, "trainer.c_1": 0.0}
    ensemble, other = ensemble_of(1, numbers), ensemble_of(trainer="bptt")
    for one in (ensemble, other):
        one.state.params["W_xh"].zero_()
        one.state.params["W_hy"].mul_(1e-6)  # a small dE/dh_T
        one.state.params["b_y"].copy_(torch.tensor([[0.0, 1.0, -1.0, 2.0]]))
    found, exact = (recorded_gradients(one, ensemble.batch(0)) for one in (ensemble, other))
    assert exact["b_h"].abs().max() > 1e-7
    assert torch.allclose(found["b_h"], exact["b_h"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("inner", "last", "factor"), [("literal", "printed", 1.0), ("fixed_target", "reread", 9.0)])
def test_k_counts_only_where_the_target_stays(inner: str, last: str, factor: float) -> None:
    """For small steps K inner steps are K times one, or hardly more than one where the re-run replaces the target.

    With K = 3 the last target is three times as far, the one before it nine times.
    """
    small = {"trainer.gamma": 1e-4, "trainer.inner": inner, "trainer.last": last}
    ensembles = [ensemble_of(1, small | {"trainer.K": K}) for K in (1, 3)]
    one, three = (layers(ensemble, ensemble.batch(0))["local_loss"].sqrt() for ensemble in ensembles)
    assert three[0, -2] / one[0, -2] == pytest.approx(factor, rel=1e-3)


def test_a_limit_of_one_cannot_bind_an_inner_step() -> None:
    """The paper's c_1 = 1. |z - z_hat| <= 2 and slopes <= 1, so ||dL/dh|| <= 4 ||W_hh||_2 / sqrt(BH)."""
    ensemble = ensemble_of(
        1, {"trainer.gamma": 30.0, "trainer.K": 5, "model.H": 20, "trainer.c_0": 0.0, "trainer.c_1": 0.0}
    )
    batch = ensemble.batch(0)
    bound = 4 * torch.linalg.matrix_norm(ensemble.state.params["W_hh"][0], 2).item() / 10.0
    shown = layers(ensemble, batch)["norm_delta_h"][0, :-1]
    assert 0 < shown.max().item() <= bound < 1.0


def test_forced_normalisation_gives_every_step_its_length() -> None:
    ensemble = ensemble_of(1, {"trainer.force": True, "trainer.c_0": 0.3, "trainer.c_1": 1.0})
    shown = layers(ensemble, ensemble.batch(0))
    assert torch.allclose(shown["norm_delta_h"], torch.ones(1, 10, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(shown["norm_W_xh"], torch.full((1, 10), 0.3, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("released", [{}, RELEASED], ids=["local", "through_time"])
def test_a_loss_that_is_zero_gives_zeros_and_no_nan(released: dict[str, Any]) -> None:
    """No way from the output to the states: every local loss is exactly 0, and nothing is divided by it."""
    ensemble = ensemble_of(1, released | {"trainer.force": True, "trainer.omega": 1.0})
    ensemble.state.params["W_hy"].zero_()
    found = recorded_gradients(ensemble, ensemble.batch(0))
    for name in ("W_hh", "b_h", "W_xh"):
        assert torch.equal(found[name], torch.zeros_like(found[name])), name


def test_omega_is_nothing_where_the_error_keeps_its_norm() -> None:
    """W_hh orthogonal and all slopes 1 (states 0, nothing moved yet): every ratio is 1."""
    found = []
    for lam in (0.0, 3.0):
        ensemble = ensemble_of(1, STRONG | {"trainer.omega": lam, "trainer.K": 1})
        ensemble.state.params["W_xh"].zero_()
        found.append(recorded_gradients(ensemble, ensemble.batch(0)))
    assert found[0]["b_h"].abs().max() > 1e-6
    for name in found[0]:
        assert torch.allclose(found[1][name], found[0][name], atol=1e-12), name


def test_displacements_keep_in_float32_what_absolute_targets_lose() -> None:
    """The local losses of the default settings fall by tens of orders of magnitude; float64 says how far."""
    shown = {}
    for dtype, targets in (("float64", "displacement"), ("float32", "displacement"), ("float32", "absolute")):
        ensemble = ensemble_of(1, {"dtype": dtype, "trainer.targets": targets, "model.H": 50})
        shown[dtype, targets] = layers(ensemble, ensemble.batch(0))["local_loss"][0]
    exact = shown["float64", "displacement"]
    assert exact[4] < 1e-20 * exact[-1]
    ratio = shown["float32", "displacement"] / exact
    assert torch.allclose(ratio[4:], torch.ones(6, dtype=torch.float64), rtol=1e-3)
    assert not torch.allclose(shown["float32", "absolute"][4:] / exact[4:], ratio[4:], rtol=0.5)


@pytest.mark.parametrize("gradient", ["through_time", "released"])
def test_the_programs_gradients_are_offered_with_its_own_loops_only(gradient: str) -> None:
    given = {"trainer.gradient": gradient, "trainer.inner": "literal"}
    with pytest.raises(UserError, match=rf"{gradient} .*inner=literal"):
        make_spec(given | {"trainer.inner": "fixed_target"}, trainer="lra")
    with pytest.raises(UserError, match=rf"first_loss: expected true, .*{gradient}"):
        make_spec(given | {"trainer.first_loss": False}, trainer="lra")


# ---- the parts


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_shift_is_a_displacement_and_the_slope_where_it_ends(name: str) -> None:
    activation = ACTIVATIONS[name]()
    a, u = 2 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scratch = Shift(a)
    torch.add(a, u, out=scratch.there)
    scratch.u.copy_(u)
    activation.anchor(a, scratch.start)
    delta = activation.shift(scratch)(torch.empty_like(a))
    h, moved = activation.apply_(a.clone()), activation.apply_(a + u)
    assert torch.allclose(delta, moved - h, rtol=1e-9, atol=1e-15)
    assert torch.allclose(scratch.slope, activation.slope(moved), rtol=1e-9, atol=1e-15)
    assert torch.allclose(
        activation.slope_gap(h, delta, scratch.slope), scratch.slope - activation.slope(h), rtol=1e-9, atol=1e-15
    )


def test_normalise_as_printed() -> None:
    norm = torch.tensor([0.0, 0.5, 1.0, 4.0])
    factor = normalizer(norm, 1.0, force=False)
    assert factor is not None
    assert factor.tolist() == [1.0, 1.0, 1.0, 0.25]
    assert normalizer(norm, 0.0, force=False) is None
    each = normalizer(norm, torch.tensor([0.0, 0.1, 0.0, 8.0]), force=True)
    assert each is not None
    assert each.tolist() == pytest.approx([1.0, 0.2, 1.0, 2.0])


def test_a_length_that_cannot_be_squared_has_a_direction() -> None:
    x = torch.full((1, 2, 2), 1e-30)
    direction, length = unit(torch.cat([x, 0 * x]))
    assert length.flatten().tolist() == pytest.approx([2e-30, 0.0])
    assert direction[0].flatten().tolist() == [0.5] * 4
    assert direction[1].flatten().tolist() == [0.0] * 4
