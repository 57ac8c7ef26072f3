"""Algorithms 1 and 2 of manchev2025 once more: one run, absolute targets, every derivative by autograd."""

from __future__ import annotations

from typing import Any

import torch
from reference import SIGMA, encode, global_loss, one_run, params_of
from torch import Tensor

from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

NAMES = ("W_hh", "b_h", "W_xh")


class Reference:
    """The gradients of one batch. Dictionaries by the paper's step t = 1..T."""

    def __init__(self, ensemble: Ensemble, batch: Batch, r: int) -> None:
        self.s: dict[str, Any] = ensemble.specs[r].config["trainer"]
        self.sigma = SIGMA[ensemble.specs[r].config["model"]["activation"]]
        self.kind = ensemble.task.readout
        self.p = params_of(ensemble, r)
        self.x, self.targets, start = one_run(encode(batch, ensemble), r)
        self.T, B = self.x.shape[:2]
        live = torch.ones(self.T + 1, B, 1, dtype=self.x.dtype)
        if start is not None:
            live[1:] = (torch.arange(self.T)[:, None] >= start).to(self.x.dtype)[..., None]
        self.live = live
        # where a step has a local loss: everywhere, or where a step stands before it
        self.counted = live if self.s["first_loss"] else torch.cat([torch.zeros_like(live[:2]), live[1:-1]])
        self.h: dict[int, Tensor] = {}
        self.z = [torch.zeros(B, self.p["W_hh"].shape[0], dtype=self.x.dtype)]
        for t in range(1, self.T + 1):
            self.h[t] = self.run(t, self.z[-1])
            self.z.append(self.sigma(self.h[t]) * live[t])
        self.delta_h: dict[int, Tensor] = {}
        self.losses: dict[int, Tensor] = {}
        self.steps: dict[int, dict[str, Tensor]] = {}

    def run(self, t: int, z: Tensor) -> Tensor:
        return self.x[t - 1] @ self.p["W_xh"] + z @ self.p["W_hh"] + self.p["b_h"]

    def L(self, z: Tensor, z_hat: Tensor) -> Tensor:
        d = (z - z_hat) ** 2
        return torch.log(1 + d).mean() if self.s["loss"] == "log_penalty" else d.mean()

    def normalize(self, D: Tensor, c: float) -> Tensor:
        if c > 0 and D.norm() > 0 and (self.s["force"] or D.norm() >= c):
            return c * D / D.norm()
        return D

    def omega(self, g: Tensor, back: Tensor, h: Tensor) -> Tensor:
        """Omega of an error g, the matrix it is carried back with, and the pre-activation it comes to."""
        slope = torch.autograd.grad(self.sigma(h).sum(), h, create_graph=True)[0]
        ratio = ((g @ back.T) * slope).norm() / g.norm()
        return (ratio - 1) ** 2 if self.s["omega_form"] == "squared" else ratio

    def own_targets(self) -> dict[int, Tensor]:
        """u of each step with an output, and W_hy's Omega gradient on the way."""
        S = len(self.targets)
        released = self.s["omega"] > 0 and self.s["omega_on"] == "released"
        self.W_hy_extra = torch.zeros_like(self.p["W_hy"])
        found = {}
        for k in range(S):
            t = self.T - S + 1 + k
            h_bar = self.h[t].detach()
            for inner in range(1 if self.s["last"] == "printed" else self.s["K"]):
                h_bar = h_bar.detach().requires_grad_()
                W_hy = self.p["W_hy"].detach().requires_grad_()
                y = (self.sigma(h_bar) * self.live[t]) @ W_hy + self.p["b_y"].detach()
                one = {"W_hy": torch.eye(y.shape[1], dtype=y.dtype), "b_y": torch.zeros(y.shape[1], dtype=y.dtype)}
                E = global_loss(one, [y], self.targets[k : k + 1], self.kind)
                D, dy = torch.autograd.grad(E, [h_bar, y], retain_graph=True)
                if released:
                    omega = self.omega(dy, W_hy, h_bar)
                    extra, W = torch.autograd.grad(omega, [h_bar, W_hy])
                    D = D + self.s["omega"] * extra
                    if inner == 0:
                        self.W_hy_extra = self.W_hy_extra + self.s["omega"] * W
                if self.s["last"] == "reread":
                    D = self.normalize(D, self.s["c_1"])
                self.delta_h[t] = D
                h_bar = h_bar - self.s["gamma"] * D
            found[t] = (h_bar - self.h[t]).detach()
        return found

    def delta(self, loss: Tensor, h_bar: Tensor, z_or_h: Tensor, t: int) -> Tensor:
        """Line 21, or its regularised form; the error g of step t is the derivative by `z_or_h`: its h, or its z."""
        D, g = torch.autograd.grad(loss, [h_bar, z_or_h], retain_graph=True)
        g = g * self.live[t - 1]
        if self.s["omega"] and g.any():
            leaf = h_bar.detach().requires_grad_()
            D = D + self.s["omega"] * torch.autograd.grad(self.omega(g, self.p["W_hh"].detach(), leaf), leaf)[0]
        return self.normalize(D, self.s["c_1"])

    def local(self) -> dict[str, Tensor]:
        """gradient=local."""
        s, T = self.s, self.T
        own = self.own_targets()
        h, z = {t: v.detach() for t, v in self.h.items()}, [v.detach() for v in self.z]
        u = own[T]
        errors: dict[int, Tensor] = {}
        for t in range(T, 0, -1):
            z_hat = (self.sigma(h[t] + u) * self.live[t]).detach()
            h_t = self.run(t, z[t - 1])
            self.losses[t] = self.L(z[t], z_hat)
            loss = self.L(self.sigma(h_t) * self.counted[t], z_hat * self.counted[t])
            found = torch.autograd.grad(loss, [h_t, *[self.p[name] for name in NAMES]])
            errors[t] = found[0]
            self.steps[t] = dict(zip(NAMES, found[1:], strict=True))
            if t == 1:
                break
            u = own.get(t - 1, torch.zeros_like(u))
            for k in range(s["K"]):
                h_bar = (h[t - 1] + (u if k else 0)).detach().requires_grad_()
                h_again = self.run(t, self.sigma(h_bar) * self.live[t - 1])
                z_again = self.sigma(h_again) * self.live[t]
                target = z[t] if s["inner"] == "literal" and k else z_hat
                D = self.delta(self.L(z_again, target), h_bar, h_again, t)
                self.delta_h[t - 1] = D
                u = u - s["gamma"] * D
        if s["omega"]:
            for t in range(1, T):
                leaves = {name: self.p[name].detach().requires_grad_() for name in NAMES}
                h_t = self.x[t - 1] @ leaves["W_xh"] + z[t - 1] @ leaves["W_hh"] + leaves["b_h"]
                if not (g := errors[t + 1] * self.counted[t]).any():
                    continue
                omega = self.omega(g, leaves["W_hh"], h_t)
                self.add_omega(t, torch.autograd.grad(omega, list(leaves.values()), allow_unused=True))
        return self.total()

    def add_omega(self, t: int, found: tuple[Tensor, ...]) -> None:
        for name, extra in zip(NAMES, found, strict=True):
            if name in {"paper": NAMES, "weights": ("W_hh", "W_xh"), "released": ("W_xh",)}[self.s["omega_on"]]:
                self.steps[t][name] = self.steps[t][name] + self.s["omega"] * extra

    def through_time(self) -> dict[str, Tensor]:
        """gradient=through_time, released: nothing is detached but Delta h."""
        s, T = self.s, self.T
        by_z = s["gradient"] == "released"
        own = self.own_targets()
        weights = [self.p[name] for name in NAMES]
        h_bar = self.h[T] + own[T]
        loss, error_node = self.L(self.z[T], self.sigma(h_bar)), self.z[T] if by_z else self.h[T]
        for t in range(T, 1, -1):
            found = torch.autograd.grad(loss, weights, retain_graph=True)
            self.losses[t], self.steps[t] = loss, dict(zip(NAMES, found, strict=True))
            if s["omega"] and t < T:
                g = torch.autograd.grad(loss, self.h[t + 1], retain_graph=True)[0]
                omega = self.omega(g, self.p["W_hh"], self.h[t])
                self.add_omega(t, torch.autograd.grad(omega, weights, retain_graph=True, allow_unused=True))
            h_bar = self.h[t - 1] + own.get(t - 1, torch.zeros_like(own[T]))
            for k in range(s["K"]):
                D = self.delta(loss, h_bar if k else self.h[t - 1], error_node, t)
                self.delta_h[t - 1] = D
                h_bar = h_bar - s["gamma"] * D
                h_again = self.run(t, self.sigma(h_bar) * self.live[t - 1])
                z_again = self.sigma(h_again) * self.live[t]
                loss, error_node = self.L(self.z[t], z_again), z_again if by_z else h_again
            error_node = self.z[t - 1] if by_z else self.h[t - 1]
        return self.total()

    def total(self) -> dict[str, Tensor]:
        released = self.s["gradient"] == "released"
        limits = {name: 0.0 if released and name == "b_h" else self.s["c_0"] for name in NAMES}
        found = {
            name: torch.stack([self.normalize(g[name], limits[name]) for g in self.steps.values()]).sum(0)
            for name in NAMES
        }
        E = global_loss(self.p, self.z, self.targets, self.kind)
        found |= dict(zip(("W_hy", "b_y"), torch.autograd.grad(E, [self.p["W_hy"], self.p["b_y"]]), strict=True))
        found["W_hy"] = self.normalize(found["W_hy"] + self.W_hy_extra, self.s["c_0"] if released else 0.0)
        return found

    def gradients(self) -> dict[str, Tensor]:
        return self.local() if self.s["gradient"] == "local" else self.through_time()

    def norms(self, name: str) -> dict[int, float]:
        """The norm of each step's normalised gradient."""
        return {t: self.normalize(g[name], self.s["c_0"]).norm().item() for t, g in self.steps.items()}
