"""One tiny sequence by hand: one unit, two steps, batch of one. Every number below follows from the line before it."""

from __future__ import annotations

from math import tanh

import pytest
import torch
from conftest import make_spec
from reference import recorded_gradients

from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("recurrences")

# x = (1, 0.5), target 0.3; linear output, E = (y - 0.3)^2
W_XH, W_HH, B_H, W_HY, B_Y, V_HH, C_H = 0.5, 0.8, 0.1, 2.0, -0.1, 0.6, 0.2
ALPHA_I = 0.25


def tiny(trainer: str, **changes: object) -> tuple[Ensemble, Batch]:
    base = {"dtype": "float64", "model.H": 1, "train.batch_size": 1, "task.reading": "paper"}
    alphas = {"trainer.alpha_i": ALPHA_I} if trainer != "bptt" else {}
    ensemble = Ensemble([make_spec(base | alphas | changes, task="adding", trainer=trainer)])
    values = {"W_hh": W_HH, "b_h": B_H, "W_hy": W_HY, "b_y": B_Y, "V_hh": V_HH, "c_h": C_H}
    for name, w in ensemble.state.params.items():
        if name == "W_xh":
            w[0] = torch.tensor([[W_XH], [0.0]])  # the second input channel is unused
        else:
            w.fill_(values[name])
    x = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 2)
    return ensemble, Batch(x, torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64))


# forward: a_1 = 1 * 0.5 + 0 * 0.8 + 0.1 = 0.6; a_2 = 0.5 * 0.5 + 0.8 h_1 + 0.1 = 0.35 + 0.8 h_1
H_1 = tanh(0.6)  # 0.5370...
H_2 = tanh(0.35 + 0.8 * H_1)  # 0.6530...
# y = 2 h_2 - 0.1; dE/dy = 2 (y - 0.3); dE/dh_2 = 2 dE/dy
DY = 2 * (2 * H_2 - 0.1 - 0.3)
DH_2 = 2 * DY
S_1, S_2 = 1 - H_1**2, 1 - H_2**2


def test_bptt_by_hand() -> None:
    ensemble, batch = tiny("bptt")
    g = recorded_gradients(ensemble, batch)
    da_2 = DH_2 * S_2
    da_1 = da_2 * 0.8 * S_1  # back through W_hh
    assert g["W_hh"].item() == pytest.approx(da_2 * H_1, rel=1e-12)  # h_0 = 0 adds nothing
    assert g["b_h"].item() == pytest.approx(da_1 + da_2, rel=1e-12)
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(da_1 * 1.0 + da_2 * 0.5, rel=1e-12)
    assert g["W_hy"].item() == pytest.approx(DY * H_2, rel=1e-12)
    assert g["b_y"].item() == pytest.approx(DY, rel=1e-12)


# targets: h_hat_2 = h_2 - 0.25 dE/dh_2; h_hat_1 = h_1 - G(x_2, h_2) + G(x_2, h_hat_2), G = tanh(0.5 x + 0.6 h + 0.2)
H_HAT_2 = H_2 - ALPHA_I * DH_2
H_HAT_1 = H_1 - tanh(0.25 + 0.6 * H_2 + 0.2) + tanh(0.25 + 0.6 * H_HAT_2 + 0.2)


@pytest.mark.parametrize("targets", ["displacement", "absolute"])
def test_tptt_by_hand(targets: str) -> None:
    ensemble, batch = tiny("tptt", **{"trainer.targets": targets})
    g = recorded_gradients(ensemble, batch)
    # local losses (h_t - h_hat_t)^2: B = H = 1, so the mean is the square itself
    d_1, d_2 = 2 * (H_1 - H_HAT_1) * S_1, 2 * (H_2 - H_HAT_2) * S_2
    assert g["W_hh"].item() == pytest.approx(d_2 * H_1, rel=1e-12)
    assert g["b_h"].item() == pytest.approx(d_1 + d_2, rel=1e-12)
    # W_xh follows dE: as in backpropagation
    da_2 = DH_2 * S_2
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(da_2 * 0.8 * S_1 * 1.0 + da_2 * 0.5, rel=1e-12)
    # G rebuilds h_0 = 0 from (x_1, h_1) and h_1 from (x_2, h_2)
    g_1, g_2 = tanh(0.5 + 0.6 * H_1 + 0.2), tanh(0.25 + 0.6 * H_2 + 0.2)
    r_1, r_2 = 2 * (g_1 - 0.0) * (1 - g_1**2), 2 * (g_2 - H_1) * (1 - g_2**2)
    assert g["V_hh"].item() == pytest.approx(r_1 * H_1 + r_2 * H_2, rel=1e-12)
    assert g["c_h"].item() == pytest.approx(r_1 + r_2, rel=1e-12)


def test_tptt_hx_by_hand() -> None:
    ensemble, batch = tiny("tptt_hx")
    g = recorded_gradients(ensemble, batch)
    d_1, d_2 = 2 * (H_1 - H_HAT_1) * S_1, 2 * (H_2 - H_HAT_2) * S_2
    assert g["W_xh"][0, 0, 0].item() == pytest.approx(d_1 * 1.0 + d_2 * 0.5, rel=1e-12)


def test_tptt_without_difference_correction_by_hand() -> None:
    ensemble, batch = tiny("tptt", **{"trainer.difference_correction": False})
    g = recorded_gradients(ensemble, batch)
    h_hat_1 = tanh(0.25 + 0.6 * H_HAT_2 + 0.2)  # eq. 5
    d_1, d_2 = 2 * (H_1 - h_hat_1) * S_1, 2 * (H_2 - H_HAT_2) * S_2
    assert g["b_h"].item() == pytest.approx(d_1 + d_2, rel=1e-12)


def test_the_papers_reading_of_the_inverse_loss_by_hand() -> None:
    ensemble, batch = tiny("tptt", **{"trainer.reading": "paper"})
    g = recorded_gradients(ensemble, batch)
    g_1 = tanh(0.5 + 0.6 * H_1 + 0.2)  # t = 1 .. T - 1 is t = 1 alone
    assert g["c_h"].item() == pytest.approx(2 * g_1 * (1 - g_1**2), rel=1e-12)


def test_the_inverse_loss_of_the_program_of_dai2021_by_hand() -> None:
    ensemble, batch = tiny("tptt_many", **{"trainer.reading": "dai2021"})
    g = recorded_gradients(ensemble, batch)
    g_2 = tanh(0.25 + 0.6 * H_2 + 0.2)  # t = 2 .. T is t = 2 alone: h_1 from (x_2, h_2)
    r_2 = 2 * (g_2 - H_1) * (1 - g_2**2)
    assert g["V_hh"].item() == pytest.approx(r_2 * H_2, rel=1e-12)
    assert g["c_h"].item() == pytest.approx(r_2, rel=1e-12)
