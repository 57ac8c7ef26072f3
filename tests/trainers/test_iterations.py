"""Six whole iterations of every rule, optimizer included, against an independent program.

It is numpy without padding, with explicit loops over time, and sees what gradients alone cannot: the order of the G
step and the targets, which rate goes to which parameter, noise and phases that change from one iteration to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_spec

from tprnn.core.streams import Stream, normals, uniform
from tprnn.engine.ensemble import Ensemble
from tprnn.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("recurrences")

B, H, SEEDS, MU = 5, 9, (11, 12), 0.9
Array = np.ndarray
SIGMA = {"tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a)), "relu": lambda a: np.maximum(a, 0)}
SLOPE = {"tanh": lambda h: 1 - h * h, "sigmoid": lambda h: h * (1 - h), "relu": lambda h: (h > 0) * 1.0}


class Plain:
    """One run."""

    def __init__(self, ensemble: Ensemble, r: int) -> None:
        self.config, self.seed, self.task = ensemble.specs[r].config, ensemble.seeds.data[r], ensemble.task
        self.p = {name: w[r].numpy().copy() for name, w in ensemble.state.params.items()}
        self.v = {name: np.zeros_like(w) for name, w in self.p.items()}
        self.rule = self.config["trainer"]
        self.sigma, self.slope = (table[self.config["model"]["activation"]] for table in (SIGMA, SLOPE))

    def nesterov(self, name: str, g: Array, alpha: str) -> None:
        rate = self.rule[alpha] * self.rule["rate_factors"].get(name, 1.0) * (name not in self.rule["freeze"])
        self.v[name] = MU * self.v[name] - rate * g
        self.p[name] = self.p[name] + MU * self.v[name] - rate * g

    def sequence(self, batch: Batch, r: int) -> tuple[Array, Array, int]:
        """Inputs and targets of run r without the empty steps, and how many of these there were."""
        x, empty = batch.inputs[r].numpy(), 0
        if batch.start is not None:
            empty = int(batch.start[r, 0])
            x = x[empty:]
        return (np.eye(self.task.inputs)[x] if x.ndim == 2 else x), batch.targets[r].numpy(), empty

    def forward(self, x: Array) -> list[Array]:
        h = [np.zeros((B, H))]
        for x_t in x:
            h.append(self.sigma(x_t @ self.p["W_xh"] + h[-1] @ self.p["W_hh"] + self.p["b_h"]))
        return h

    def output(self, h: list[Array], targets: Array) -> tuple[dict[int, Array], dict[str, Array]]:
        """dE/dh_t of the steps with an output, and the read-out's gradients."""
        S, pull = len(targets), {}
        grads = {"W_hy": np.zeros_like(self.p["W_hy"]), "b_y": np.zeros_like(self.p["b_y"])}
        for k in range(S):
            t = len(h) - S + k
            y = h[t] @ self.p["W_hy"] + self.p["b_y"]
            if self.task.readout == "softmax":
                q = np.exp(y - y.max(1, keepdims=True))
                dy = (q / q.sum(1, keepdims=True) - np.eye(self.task.outputs)[targets[k]]) / (S * B)
            else:
                dy = 2 * (y - targets[k]) / (S * B)
            grads["W_hy"] += h[t].T @ dy
            grads["b_y"] += dy.sum(0)
            pull[t] = dy @ self.p["W_hy"].T
        return pull, grads

    def back(self, x: Array, h: list[Array], pull: dict[int, Array]) -> dict[str, Array]:
        """Backpropagation through time."""
        g = {name: np.zeros_like(self.p[name]) for name in ("W_xh", "W_hh", "b_h")}
        carry = np.zeros((B, H))
        for t in range(len(x), 0, -1):
            da = (carry + pull.get(t, 0)) * self.slope(h[t])
            g["W_xh"] += x[t - 1].T @ da
            g["W_hh"] += h[t - 1].T @ da
            g["b_h"] += da.sum(0)
            carry = da @ self.p["W_hh"].T
        return g


class PlainBPTT(Plain):
    def step(self, batch: Batch, r: int, iteration: int) -> None:
        x, targets, _ = self.sequence(batch, r)
        h = self.forward(x)
        pull, grads = self.output(h, targets)
        for name, g in (self.back(x, h, pull) | grads).items():
            self.nesterov(name, g, "alpha")


class PlainTPTT(Plain):
    def G(self, x_t: Array, h_t: Array) -> Array:
        return self.sigma(x_t @ self.p["W_xh"] + h_t @ self.p["V_hh"] + self.p["c_h"])

    def inverse(self, x: Array, h: list[Array], noise: Array) -> dict[str, Array]:
        g = {"V_hh": np.zeros((H, H)), "c_h": np.zeros(H)}
        first, last = {"released": (1, len(x)), "paper": (1, len(x) - 1), "dai2021": (2, len(x))}[self.rule["reading"]]
        for t in range(first, last + 1):
            before = h[t - 1] + noise[t - 1]
            after = self.sigma(x[t - 1] @ self.p["W_xh"] + before @ self.p["W_hh"] + self.p["b_h"])
            rebuilt = self.G(x[t - 1], after)
            d = 2 * (rebuilt - before) * self.slope(rebuilt) / (B * H)
            g["V_hh"] += after.T @ d
            g["c_h"] += d.sum(0)
        return g

    def targets(self, x: Array, h: list[Array], pull: dict[int, Array]) -> dict[int, Array]:
        T = len(x)
        own = self.rule["alpha_i"] * len(pull)  # of E_t; E is their mean
        h_hat = {T: h[T] - own * pull[T]}
        for t in range(T - 1, 0, -1):
            h_hat[t] = self.G(x[t], h_hat[t + 1])
            if self.rule["difference_correction"]:
                h_hat[t] = h[t] - self.G(x[t], h[t + 1]) + h_hat[t]
            if t in pull:
                h_hat[t] = h_hat[t] - own * pull[t]
        return h_hat

    def step(self, batch: Batch, r: int, iteration: int) -> None:
        x, targets, empty = self.sequence(batch, r)
        h = self.forward(x)
        pull, f = self.output(h, targets)
        g_step = f_step = True
        if self.rule["phases"] == "random":
            draw = uniform(Stream([self.seed], "phase").words([iteration], 1)[0, :, 0], torch.float64).item()
            g_step, f_step = draw < self.rule["p_g"], draw >= self.rule["p_g"]
        noise = np.zeros((batch.T, B, H))
        if self.rule["noise"]:
            noise = normals(Stream([self.seed], "noise"), iteration, (batch.T, B, H), torch.float64)[0].numpy()
        inverse = self.inverse(x, h, self.rule["noise"] * noise[empty:])
        h_hat = self.targets(x, h, pull)
        if g_step:
            for name, g in inverse.items():
                self.nesterov(name, g, "alpha_g")
        if self.rule["reading"] == "released":
            h_hat = self.targets(x, h, pull)  # with the new V_hh, c_h
        local = {name: np.zeros_like(self.p[name]) for name in ("W_hh", "b_h", "W_xh")}
        for t in range(1, len(x) + 1):
            d = 2 * (h[t] - h_hat[t]) * self.slope(h[t]) / (B * H)
            local["W_hh"] += h[t - 1].T @ d
            local["b_h"] += d.sum(0)
            local["W_xh"] += x[t - 1].T @ d
        if self.rule["wxh"] == "gradient":
            local["W_xh"] = self.back(x, h, pull)["W_xh"]
        if f_step:
            for name, g in (local | f).items():
                self.nesterov(name, g, "alpha_f")


VARIANTS: list[dict[str, Any]] = [
    {},
    {"trainer.reading": "paper"},
    {"trainer.reading": "dai2021"},
    {"trainer.wxh": "local"},
    {"trainer.targets": "absolute"},
    {"trainer.difference_correction": False},
    {"trainer.noise": 0.1},
    {"trainer.noise": 0.1, "trainer.reading": "paper"},
    {"trainer.phases": "random"},
    {"model.activation": "sigmoid"},
    {"model.activation": "relu"},
    {"trainer.freeze": ["V_hh", "b_h"], "trainer.rate_factors": {"W_hh": 3.0}},
]


def assert_same_after_six_iterations(plain: type, changes: dict[str, Any], outputs: int = 1, **choices: str) -> None:
    base = {"dtype": "float64", "model.H": H, "train.batch_size": B, "task.T": 23}
    ensemble = Ensemble([make_spec(base | {"seed": seed} | changes, **choices) for seed in SEEDS])
    runs = [plain(ensemble, r) for r in range(len(SEEDS))]
    for iteration in range(6):
        batch = ensemble.batch(iteration)
        if outputs > 1:
            generator = torch.Generator().manual_seed(iteration)
            targets = torch.randint(0, ensemble.task.outputs, (len(SEEDS), outputs, B), generator=generator)
            batch = Batch(batch.inputs, targets)
        ensemble.trainer.step(ensemble.state, batch, iteration)
        for r, run in enumerate(runs):
            run.step(batch, r, iteration)
    for r, run in enumerate(runs):
        for name, w in run.p.items():
            assert np.abs(ensemble.state.params[name][r].numpy() - w).max() < 1e-11 * max(1.0, np.abs(w).max()), name


@pytest.mark.parametrize("task", ["temporal_order", "adding", "random_permutation"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_tptt(task: str, variant: dict[str, Any]) -> None:
    alpha_f = 0.02 if task == "adding" else 0.2  # rounding grows with a run that leaves its range
    rates = {"trainer.alpha_i": 5.0, "trainer.alpha_f": alpha_f, "trainer.alpha_g": 0.3}
    assert_same_after_six_iterations(PlainTPTT, rates | variant, task=task, trainer="tptt")


@pytest.mark.parametrize("variant", [{}, {"trainer.targets": "absolute"}, {"trainer.wxh": "local"}], ids=str)
def test_tptt_with_seven_outputs(variant: dict[str, Any]) -> None:
    rates = {"trainer.alpha_i": 5.0, "trainer.alpha_f": 0.2, "trainer.alpha_g": 0.3}
    assert_same_after_six_iterations(PlainTPTT, rates | variant, outputs=7, trainer="tptt")


@pytest.mark.parametrize("task", ["temporal_order", "adding", "random_permutation"])
def test_bptt(task: str) -> None:
    changes = {"trainer.alpha": 0.2, "trainer.rate_factors": {"W_hh": 0.1}}
    assert_same_after_six_iterations(PlainBPTT, changes, task=task)
