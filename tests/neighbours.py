"""Three runs of one stack that differ in all that runs of a stack can differ in, for every rule and form."""

from __future__ import annotations

from typing import Any

from conftest import MEMBERS, OPTIMIZERS, TASKS, make_spec

from tprnn.config import RunSpec

SMALL = {"dtype": "float64", "model.H": 8, "train.batch_size": 5, "task.T": 20}

# numbers that differ between the runs of a stack, by setting
PER_RUN: dict[str, dict[str, list[Any]]] = {
    "trainer": {
        "alpha": [0.01, 0.02, 0.005],
        # far targets at every step make a run chaotic: the last bit of a rate then decides all after thirty steps
        "alpha_i": [0.1, 1.0, 2.0],
        "alpha_f": [0.01, 0.02, 0.005],
        "alpha_g": [0.01, 0.001, 0.1],
        "noise": [0.0, 0.1, 0.05],
        "p_g": [0.5, 0.2, 0.8],
        "scale": [0.1, 1.0, 0.01],
        "r": [5.0, 10.0, 20.0],  # less dampens so little that a run leaves the range
        "clip_norm": [None, 0.1, 1.0],
        "g_first": [0, 2, 5],
        "shrink": [1.0, 0.9, 0.5],
        "omega": [0.0, 0.1, 0.2],
        "gamma": [1.0, 0.1, 2.0],
        "c_0": [0.1, 0.0, 1.0],
        "c_1": [0.0, 0.01, 1.0],
        "freeze": [[], ["W_hh"], ["W_xh", "b_h"]],
        "rate_factors": [{}, {"W_hh": 0.1}, {"b_y": 0.0}],
        "K": [3, 3, 3],  # the same for all, and enough to see all of an inner loop
    },
    "optimizer": {
        "momentum": [0.9, 0.0, 0.5],
        "beta1": [0.9, 0.5, 0.8],
        "beta2": [0.999, 0.9, 0.99],
        "eps": [1e-8, 1e-6, 1e-4],
        "rho": [0.99, 0.9, 0.95],
    },
}

# (rule, structural settings, choices of other members)
FORMS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    *[("tptt", {}, {"optimizer": optimizer}) for optimizer in OPTIMIZERS],
    ("tptt", {"trainer.phases": "random"}, {}),
    ("tptt", {"trainer.targets": "absolute", "trainer.reading": "paper"}, {}),
    ("tptt_hx", {"model.activation": "relu", "model.init": "gaussian"}, {}),
    ("tptt_many", {"trainer.truncate": 3, "trainer.phases": "random"}, {"task": "copy_memory"}),
    ("tptt_many", {"trainer.targets": "absolute"}, {"task": "copy_memory", "optimizer": "adam"}),
    ("lra", {"trainer.inner": "literal", "trainer.loss": "log_penalty"}, {}),
    ("lra", {"trainer.K": 1, "trainer.force": True}, {}),  # K steps of one length meet at a signal of mere rounding
    ("lra", {"trainer.inner": "literal", "trainer.gradient": "through_time", "trainer.omega_on": "released"}, {}),
    ("lra", {"trainer.inner": "literal", "trainer.gradient": "released"}, {}),
    ("lra", {"trainer.targets": "absolute", "model.activation": "sigmoid"}, {}),
    ("lra", {"trainer.first_loss": False, "trainer.last": "reread_unlimited"}, {"task": "adding"}),
    # the regulariser is of one W_hh
    *[("bptt", {"trainer.omega": 0.0}, {"task": "adding", "model": network}) for network in ("lstm", "gru")],
]
EVERY_TASK = [(trainer, {}, {"task": task}) for trainer in MEMBERS["trainer"] for task in TASKS]


def neighbours(trainer: str, changes: dict[str, Any] | None = None, **choices: str) -> list[RunSpec]:
    """Three runs of one stack that differ in seed and in every per-run number of the rule and the optimizer."""
    config = make_spec(trainer=trainer, **choices).config
    found = []
    for r in range(3):
        numbers = {
            f"{kind}.{key}": values[r]
            for kind, settings in PER_RUN.items()
            for key, values in settings.items()
            if key in config[kind]
        }
        found.append(make_spec(SMALL | {"seed": 10 + r} | numbers | (changes or {}), trainer=trainer, **choices))
    assert len({spec.stack_key for spec in found}) == 1
    return found
