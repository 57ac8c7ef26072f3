"""The rules once more, slowly: plain formulas on one run, derivatives by autograd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tprnn.core.streams import Stream, normals
from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

SIGMA = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


def recorded_gradients(ensemble: Ensemble, batch: Batch, position: int = 0) -> dict[str, Tensor]:
    """The gradients [R, ...] that the ensemble's rule computes for a batch, by parameter name; nothing is updated."""
    seen: dict[str, Tensor] = {}

    def record(state: Any, gradients: Any, alpha: str, active: Any = None) -> None:
        seen.update({name: g.clone() for name, g in gradients.items()})

    ensemble.trainer.update = record
    ensemble.trainer.step(ensemble.state, batch, position)
    return seen


def one_run(batch: Batch, r: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs [T, B, I] (tokens as one-hot), targets [S, B, ...] and starts [B] of run r."""
    return batch.inputs[r], batch.targets[r], None if batch.start is None else batch.start[r]


def forward(p: dict[str, Tensor], x: Tensor, start: Tensor | None, sigma: Any) -> list[Tensor]:
    """[h_0, ..., h_T] of the simple recurrent network, Eq. 1."""
    T, B = x.shape[:2]
    h = [torch.zeros(B, p["W_hh"].shape[0], dtype=p["W_hh"].dtype)]
    for t in range(T):
        h_t = sigma(x[t] @ p["W_xh"] + h[-1] @ p["W_hh"] + p["b_h"])
        h.append(h_t if start is None else h_t * (t >= start)[:, None])
    return h


def global_loss(p: dict[str, Tensor], h: list[Tensor], targets: Tensor, kind: str) -> Tensor:
    """E of the last S steps."""
    S = targets.shape[0]
    y = torch.stack(h[-S:]) @ p["W_hy"] + p["b_y"]
    if kind == "softmax":
        return torch.nn.functional.cross_entropy(y.flatten(0, 1), targets.flatten())
    return (y - targets).square().sum(-1).mean()


def params_of(ensemble: Ensemble, r: int) -> dict[str, Tensor]:
    """Run r's parameters as leaves that require gradients."""
    return {name: w[r].clone().requires_grad_() for name, w in ensemble.state.params.items()}


def bptt_gradients(ensemble: Ensemble, batch: Batch, r: int) -> dict[str, Tensor]:
    """dE/dw by autograd, with the Omega term of Pascanu et al. where the run has one."""
    spec = ensemble.specs[r].config
    sigma = SIGMA[spec["model"]["activation"]]
    p = params_of(ensemble, r)
    x, targets, start = one_run(encode(batch, ensemble), r)
    T = x.shape[0]
    zeros = [torch.zeros(x.shape[1], p["W_hh"].shape[0], dtype=x.dtype, requires_grad=True) for _ in range(T)]
    h = [torch.zeros_like(zeros[0])]
    a = []
    for t in range(T):
        a.append(x[t] @ p["W_xh"] + h[-1] @ p["W_hh"] + p["b_h"] + zeros[t])
        h_t = sigma(a[-1])
        h.append(h_t if start is None else h_t * (t >= start)[:, None])
    E = global_loss(p, h, targets, ensemble.task.readout)
    grads = dict(zip(p, torch.autograd.grad(E, list(p.values()), retain_graph=True), strict=True))
    lam = spec["trainer"]["omega"]
    if lam:
        e = torch.autograd.grad(E, zeros)
        W = p["W_hh"]
        omega = torch.zeros((), dtype=x.dtype)
        for t in range(T - 1):
            with torch.enable_grad():
                a_t = a[t].detach().requires_grad_()
                slope = torch.autograd.grad(sigma(a_t).sum(), a_t)[0]
            live = torch.ones(x.shape[1], dtype=torch.bool) if start is None else t >= start
            ratio = ((e[t + 1] @ W.T) * slope).norm(dim=1) / e[t + 1].norm(dim=1)
            omega = omega + ((ratio - 1) ** 2)[live].sum() / x.shape[1]
        grads["W_hh"] = grads["W_hh"] + lam * torch.autograd.grad(omega, W)[0]
    return grads


def encode(batch: Batch, ensemble: Ensemble) -> Batch:
    """Tokens as one-hot features."""
    if not batch.tokens:
        return batch
    return replace(batch, inputs=torch.nn.functional.one_hot(batch.inputs, ensemble.task.inputs).to(ensemble.dtype))


def tptt_gradients(ensemble: Ensemble, batch: Batch, r: int, position: int = 0) -> dict[str, Tensor]:
    """Eq. 3 to 13 of manchev2020 by autograd, V_hh and c_h held at their present values."""
    spec = ensemble.specs[r].config
    s = spec["trainer"]
    sigma = SIGMA[spec["model"]["activation"]]
    p = params_of(ensemble, r)
    x, targets, start = one_run(encode(batch, ensemble), r)
    T, B = x.shape[:2]
    H = p["W_hh"].shape[0]
    live = torch.ones(T, B, 1, dtype=x.dtype)
    if start is not None:
        live = (torch.arange(T)[:, None] >= start).to(x.dtype)[..., None]
    h = forward(p, x, start, sigma)
    E = global_loss(p, h, targets, ensemble.task.readout)
    dE = dict(zip(p, torch.autograd.grad(E, list(p.values()), retain_graph=True, allow_unused=True), strict=True))

    def F(x_t: Tensor, h_tm1: Tensor) -> Tensor:
        return sigma(x_t @ p["W_xh"] + h_tm1 @ p["W_hh"] + p["b_h"])

    def G(x_t: Tensor, h_t: Tensor) -> Tensor:
        return sigma(x_t @ p["W_xh"] + h_t @ p["V_hh"] + p["c_h"])

    S = targets.shape[0]
    leaf = [v.detach().requires_grad_() for v in h]
    E_leaf = S * global_loss(
        p, leaf, targets, ensemble.task.readout
    )  # sum_t E_t: each step's own loss pulls its own state
    pull = torch.autograd.grad(E_leaf, leaf[-S:])
    h = [v.detach() for v in h]
    h_hat: dict[int, Tensor] = {T: h[T] - s["alpha_i"] * pull[-1]}
    for t in range(T - 1, 0, -1):
        h_hat[t] = G(x[t], h_hat[t + 1])
        if s["difference_correction"]:
            h_hat[t] = h[t] - G(x[t], h[t + 1]) + h_hat[t]
        if t > T - S:
            h_hat[t] = h_hat[t] - s["alpha_i"] * pull[t - (T - S) - 1]
        h_hat[t] = torch.where(live[t - 1] > 0, h_hat[t], h[t]).detach()
    local = sum(((F(x[t - 1], h[t - 1]) - h_hat[t]).square() * live[t - 1]).sum() / (B * H) for t in range(1, T + 1))
    local_names = ["W_hh", "b_h", "W_xh"]
    found = dict(zip(local_names, torch.autograd.grad(local, [p[n] for n in local_names]), strict=True))
    if s["wxh"] == "gradient":
        found["W_xh"] = dE["W_xh"]
    found |= {"W_hy": dE["W_hy"], "b_y": dE["b_y"]}
    last = T - 1 if s["reading"] == "paper" else T
    noise = torch.zeros(T, B, H, dtype=x.dtype)
    if s["noise"]:
        noise = s["noise"] * normals(Stream([spec["seed"]], "noise"), position, (T, B, H), x.dtype)[0]
    inverse = torch.zeros((), dtype=x.dtype)
    for t in range(1, last + 1):
        h_tm1 = h[t - 1] + noise[t - 1]
        rebuilt = G(x[t - 1], F(x[t - 1], h_tm1).detach())
        # dai2021: from each sequence's own second step on
        counted = (live[t - 2] if t > 1 else 0 * live[0]) if s["reading"] == "dai2021" else live[t - 1]
        inverse = inverse + ((rebuilt - h_tm1).square() * counted).sum() / (B * H)
    found |= dict(zip(("V_hh", "c_h"), torch.autograd.grad(inverse, [p["V_hh"], p["c_h"]]), strict=True))
    return found
