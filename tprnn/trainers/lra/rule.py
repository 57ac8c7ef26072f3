"""Local representation alignment through time (manchev2025, LRA-diff, Algorithms 1 and 2).

    a_t = z_{t-1} W_hh + x_t W_xh + b_h,  z_t = sigma(a_t)        Eq. 1; a is the paper's h, z is `states.h`
    z_hat_T = sigma(a_T + u_T),  u_T = -gamma dE/da_T             lines 8 to 13
    z_hat_{t-1} = sigma(a_{t-1} + u_{t-1}), where K times         lines 19 to 26
        u <- u - gamma Normalize(dL(z_t, z_hat_t)/da_{t-1}, c_1)
    W_hh, b_h, W_xh follow                                        lines 16 to 18, z_{t-1} and targets held fixed
        -alpha sum_t Normalize(dL(z_t, z_hat_t)/dw, c_0)
    W_hy, b_y follow -alpha grad E                                line 7

L is a mean over batch and units: (z - z_hat)^2 or log(1 + (z - z_hat)^2) (eq. 8). Normalize(D, c) = c D / ||D|| where
||D|| >= c, and always with `force`; c = 0 switches it off. ||D|| is that of the whole array, as in the authors'
program: of each step's gradient, and at each inner step of Delta h over batch and units.

`inner`: in the inner loop step t is run again from z_bar_{t-1}. As printed (`literal`) the new value overwrites the
target z_hat_t while z_t stays, so that from the second inner step on u is drawn back to 0. `fixed_target` compares the
new value with the target, which stays (Ororbia et al. 2018).
`last`: as printed neither h_bar_T nor y changes in the inner loop of the last target, and K has no effect (`printed`);
`reread` reads E from the moved state at each of K inner steps and normalises with c_1, as the program does;
`reread_unlimited` leaves c_1 out, for line 10 has no Normalize.
`first_loss`: Algorithm 1 sums from t = 1 on, after z_0 = sigma(x_0 W_xh + b_h). If x_0 is the first input, the step
that reads it has no local loss and no Omega (false); with h_0 = 0 (section III) it has both.
`gradient: through_time` has the losses that the program computes, where nothing is detached (_lra_released.py), and
normalises W_hh, b_h and W_xh as lines 16 to 18 say. `released` has what the program does besides: W_hy is normalised to
c_0, Omega included, and b_h is not; and g in the Omega of Delta h is dL/dz, by the activation of the step that asks.
Neither has a loss of the first step.

Where outputs stand at several steps, each step begins with the u that its own loss E_t asks for, as the last one does;
the local loss of the step after it then adds to that.

`omega` lambda (Algorithm 2) adds lambda dOmega_t/dw to the gradients of `omega_on` before they are normalised,

    Omega_t = (||g W_hh^T * sigma'(a_t)|| / ||g|| - 1)^2,  g = dL(z_{t+1}, z_hat_{t+1})/da_{t+1}             Eq. 5

(printed there with L(z_t, z_hat_t) and without the square: `omega_form: ratio`). g and z_{t-1} are held fixed, so W_hh
counts where it stands and through a_t; b_h, W_xh and Delta h_t through a_t. The program takes diag() of a matrix [B, H]
for sigma', which keeps only some of its entries; that is not followed. `omega_on: weights` leaves out b_h, which eq. 6
and 7 do not have; `released` has W_xh, Delta h, the last step's included, and W_hy with the Omega of the read-out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core.directions import normalizer, omega
from tprnn.core.products import outer_sum, rows
from tprnn.core.streams import Seeds
from tprnn.core.work import step_slices
from tprnn.errors import UserError
from tprnn.models.base import ADDITIVE, GRADIENT, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Reading, Tensors
from tprnn.settings import rate, setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import Costs, State, Trainer, TrainerSettings
from tprnn.trainers.lra.local import Inner, carry_back, carry_compiled
from tprnn.trainers.lra.released import Released
from tprnn.trainers.lra.sums import Seen, Sums

REGULARIZED = {"paper": ("W_hh", "b_h", "W_xh"), "weights": ("W_hh", "W_xh"), "released": ("W_xh",)}
"""Which gradients of a step Omega is added to, by `omega_on`: Algorithm 2, lines 16 to 18; eq. 6 and 7; the program."""


@dataclass(frozen=True)
class LRASettings(TrainerSettings):
    """conf/trainer/lra.yaml."""

    alpha: float = rate()
    gamma: float = rate()
    K: int = setting(low=1)
    c_0: float = setting(low=0.0, per_run=True)
    c_1: float = setting(low=0.0, per_run=True)
    force: bool = setting()
    loss: str = setting(choices=("mse", "log_penalty"))
    inner: str = setting(choices=("literal", "fixed_target"))
    last: str = setting(choices=("printed", "reread", "reread_unlimited"))
    first_loss: bool = setting(before=True)
    gradient: str = setting(choices=("local", "through_time", "released"))
    targets: str = setting(choices=("displacement", "absolute"))
    omega: float = setting(low=0.0, per_run=True)
    omega_form: str = setting(choices=("squared", "ratio"))
    omega_on: str = setting(choices=tuple(REGULARIZED))


class LRA(Trainer):
    """Local losses instead of the gradient of E for W_hh, b_h and W_xh."""

    Settings = LRASettings
    needs = frozenset({GRADIENT, ADDITIVE})
    paper = "manchev2025"
    # section IV; its batch size is not stated
    paper_settings: ClassVar[Mapping[str, Sequence[Any]]] = {
        "optimizer.name": ["sgd"],
        "optimizer.momentum": [0.0],
        "model.H": [100],
        "model.activation": ["tanh"],
        "model.init": ["orthogonal"],
    }

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        one = self.options = self.settings[0]  # what is not per run is the same for all
        self.with_omega = any(one.omega > 0 for one in self.settings)
        self.inner = Inner(
            K=one.K,
            gamma=self.number("gamma"),
            c_1=self.number("c_1"),
            force=one.force,
            log_penalty=one.loss == "log_penalty",
            literal=one.inner == "literal",
            absolute=one.targets == "absolute",
            omega=self.number("omega"),
            omega_form=one.omega_form,
            released=one.gradient == "released",
        )
        self.sums = Sums(
            model, self.inner, self.number("c_0"), self.with_omega, REGULARIZED[one.omega_on], one.first_loss
        )
        self.readout_omega = self.with_omega and one.omega_on == "released"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        super().check(config)
        trainer = config["trainer"]
        gradient = trainer["gradient"]
        if gradient != "local" and trainer["inner"] != "literal":
            raise UserError(f"trainer.gradient: {gradient} is the released program's; give trainer.inner=literal too")
        if gradient != "local" and not trainer["first_loss"]:
            raise UserError(f"trainer.first_loss: expected true, for {gradient} has no loss of the first step anyway")

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        trainer, K = config["trainer"], config["trainer"]["K"]
        omega = int(trainer["omega"] > 0)
        if trainer["gradient"] != "local":
            # each loss goes back through all earlier steps; compiled, those that no limit touches go together
            back = config["task"].get("T", 0) // 2 * (1 + omega)
            # g of another kind is made, and goes back, on its own
            own = (K + 1) * omega * int(trainer["gradient"] == "released")
            return Costs(dependent=2 * K + 3 + own, activated=2 * K + 1, rows=1 + omega + back, outer=back, buffers=12)
        # states, then K times back and K - 1 times forth, with an activation for each state moved
        explicit = omega * int("W_hh" in REGULARIZED[trainer["omega_on"]])
        return Costs(dependent=2 * K, activated=2 * K, rows=1 + omega, outer=1 + explicit, buffers=5)

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        gradients = self.local_gradients(params, states, readout)
        gradients |= self.readout_gradients(params, states, readout)
        self.update(state, gradients, "alpha")
        return readout.loss

    def layers(self, state: State, batch: Batch, position: int | Tensor) -> dict[str, Tensor]:
        """L(z_t, z_hat_t), ||Delta h_t|| of the last inner step, ||grad W_hh^t|| and ||grad W_xh^t|| (figure 2)."""
        seen: dict[str, Tensor] = {}
        states = self.model.forward(state.params, batch, self.draws(position))
        self.local_gradients(state.params, states, self.model.readout(state.params, states), seen)
        return seen

    def readout_gradients(self, params: Tensors, states: States, readout: Reading) -> dict[str, Tensor]:
        """Line 7, and for W_hy the Omega of the read-out and the limit c_0 where the program has them."""
        gradients = self.model.readout_gradients(states, readout)
        if self.readout_omega:
            h = states.h[:, -states.batch.outputs :]
            slope = self.model.activation.slope(h)
            bend, form = self.model.activation.bend(h), self.inner.omega_form
            _, left, right = omega(readout.dy, readout.dh * slope, bend, form)
            gradients["W_hy"] += outer_sum(left * slope * like(self.inner.omega, slope), right)
        if self.inner.released:
            norm = torch.linalg.vector_norm(gradients["W_hy"], dim=(-2, -1), keepdim=True)
            factor = normalizer(norm, like(self.sums.c_0, norm), self.inner.force)
            if factor is not None:
                gradients["W_hy"] *= factor
        return gradients

    def local_gradients(
        self, params: Tensors, states: States, readout: Reading, seen: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The sums over steps of lines 16 to 18 and 28; what `layers` shows goes to `seen`."""
        model, inner = self.model, self.inner
        a, x = self.pre_activations(params, states)
        moved, last = self.last_targets(params, states, readout, a)
        watch = None if seen is None else Seen(inner, last, states.batch.T, seen)
        if self.options.gradient != "local":
            released = Released(inner, model, params, states, a, x, moved)
            released.losses(watch)
            return self.sums.through_time(released, seen)
        if model.compiled and not inner.absolute and watch is None:
            g = carry_compiled(inner, model, params, states, a, moved)
        else:
            g = carry_back(inner, model, params, states, step_slices(a), step_slices(x), moved, watch)
        return self.sums.local(params, states, g.mul_(-2.0 / (g.shape[2] * g.shape[3])), seen)

    def pre_activations(self, params: Tensors, states: States) -> tuple[Tensor, Tensor]:
        """a_t of the forward pass and, where the re-run step needs it, x_t W_xh + b_h; [R, T, B, H]."""
        model, batch = self.model, states.batch
        shape = states.h[:, 1:].shape
        a = model.input_part(params, batch, params["b_h"], model.work.tensor("a", *shape))
        x = model.work.tensor("x", *shape).copy_(a) if self.inner.absolute else a
        rows(a).baddbmm_(rows(states.h[:, :-1]), params["W_hh"])
        return a, x

    def last_targets(self, params: Tensors, states: States, readout: Reading, a: Tensor) -> tuple[Tensor, Tensor]:
        """Lines 8 to 13: (u, last Delta h) of the steps with an output, through that output; [R, S, B, H] each."""
        model, inner, S = self.model, self.inner, states.batch.outputs
        a, z = a[:, -S:], states.h[:, -S:]
        u = torch.zeros_like(z)
        for k in range(1 if self.options.last == "printed" else inner.K):
            if k > 0:
                z = model.activation.apply_(a + u)
                readout = model.reader.read(params, z, states.batch.targets)
            # S dE/da = dE_t/da: each step's own loss pulls its own state
            dh = model.activation.back(readout.dh, z, out=torch.empty_like(z)).mul_(S)
            model.mask_(states, dh, states.batch.T - S)
            if self.readout_omega:
                da, _, _ = omega(readout.dy * S, dh, model.activation.bend(z), inner.omega_form)
                dh.add_(da * like(inner.omega, dh))
            if self.options.last == "reread":
                norm = torch.linalg.vector_norm(dh, dim=(-2, -1), keepdim=True)
                factor = normalizer(norm, like(inner.c_1, dh), inner.force)
                dh = dh if factor is None else dh * factor
            u = u - dh * like(inner.gamma, dh)
        return u, dh
