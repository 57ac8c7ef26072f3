"""A run's result never depends on its neighbours: stacked = solo, permuted, beside a run that breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import MEMBERS, make_spec

from tprnn.config import RunSpec
from tprnn.engine.slab import Slab
from tprnn.trainers.base import State

STEPS = 30
SMALL = {"dtype": "float64", "model.H": 8, "train.batch_size": 5, "task.T": 20}

# numbers that differ between the runs of a stack, by setting
PER_RUN: dict[str, list[Any]] = {
    "alpha": [0.01, 0.02, 0.005],
    # far targets at every step make a run chaotic: the last bit of a rate then decides all after thirty steps
    "alpha_i": [0.1, 1.0, 2.0],
    "alpha_f": [0.01, 0.02, 0.005],
    "alpha_g": [0.01, 0.001, 0.1],
    "noise": [0.0, 0.1, 0.05],
    "p_g": [0.5, 0.2, 0.8],
    "scale": [0.1, 1.0, 0.01],
    "r": [1.0, 10.0, 0.5],
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
}


def specs(trainer: str, structural: dict[str, Any] | None = None, **choices: str) -> list[RunSpec]:
    """Three runs of one stack that differ in seed and in every per-run number of the rule."""
    settings = make_spec(trainer=trainer).config["trainer"]
    found = []
    for r in range(3):
        numbers = {f"trainer.{key}": values[r] for key, values in PER_RUN.items() if key in settings}
        found.append(make_spec(SMALL | {"seed": 10 + r} | numbers | (structural or {}), trainer=trainer, **choices))
    assert len({spec.stack_key for spec in found}) == 1
    return found


def train(slab: Slab, steps: int = STEPS) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        slab.advance()
    return slab.state.flat() | {"loss": slab.loss_sum}


STRUCTURES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    *[(trainer, {}, {"task": task}) for trainer in MEMBERS["trainer"] for task in MEMBERS["task"]],
    *[("tptt", {}, {"optimizer": optimizer}) for optimizer in MEMBERS["optimizer"]],
    ("tptt", {"trainer.phases": "random"}, {}),
    ("tptt", {"trainer.targets": "absolute", "trainer.reading": "paper"}, {}),
    ("tptt_hx", {"model.activation": "relu", "model.init": "gaussian"}, {}),
    ("tptt_many", {"trainer.truncate": 3, "trainer.phases": "random"}, {"task": "copy_memory"}),
    ("tptt_many", {"trainer.targets": "absolute"}, {"task": "copy_memory", "optimizer": "adam"}),
    ("lra", {"trainer.inner": "literal", "trainer.loss": "log_penalty"}, {}),
    ("lra", {"trainer.K": 1, "trainer.force": True}, {}),  # K steps of one length meet at a signal of mere rounding
    ("lra", {"trainer.inner": "literal", "trainer.gradient": "through_time", "trainer.omega_on": "released"}, {}),
    ("lra", {"trainer.targets": "absolute", "model.activation": "sigmoid"}, {}),
]


@pytest.mark.parametrize(("trainer", "structural", "choices"), STRUCTURES, ids=str)
def test_stacked_equals_solo(trainer: str, structural: dict[str, Any], choices: dict[str, str]) -> None:
    runs = specs(trainer, structural, **choices)
    together = train(Slab(runs))
    for r, spec in enumerate(runs):
        alone = train(Slab([spec]))
        for name, value in alone.items():
            assert torch.allclose(together[name][r], value[0], rtol=1e-9, atol=1e-12), name
        moved = Slab([spec]).state.params
        assert any(not torch.equal(alone[f"param/{name}"], w) for name, w in moved.items())


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
@pytest.mark.parametrize("task", MEMBERS["task"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_runs_that_differ_in_seed_alone_have_the_same_bits_stacked_and_solo(
    trainer: str, task: str, dtype: str
) -> None:
    numbers = SMALL | {"dtype": dtype, "model.H": 100}
    if trainer == "tptt_hx":
        numbers |= {"trainer.alpha_f": 0.01}  # so that none of these runs leaves the range: nan equals nothing
    if "K" in make_spec(trainer=trainer).config["trainer"]:
        numbers |= {"trainer.K": PER_RUN["K"][0]}
    runs = [make_spec(numbers | {"seed": seed}, trainer=trainer, task=task) for seed in range(4)]
    together = train(Slab(runs), 10)  # other bits show at once
    for r, spec in enumerate(runs):
        for name, value in train(Slab([spec]), 10).items():
            assert torch.equal(together[name][r], value[0]), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_a_permuted_stack_permutes_its_results(trainer: str) -> None:
    runs = specs(trainer)
    order = [2, 0, 1]
    straight, permuted = train(Slab(runs)), train(Slab([runs[i] for i in order]))
    for name, value in straight.items():
        assert torch.equal(value[order], permuted[name]), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_a_run_that_becomes_nan_leaves_its_neighbours_unchanged(trainer: str) -> None:
    runs = specs(trainer)
    healthy, beside = Slab(runs), Slab(runs)
    beside.state.params["W_hh"][1] = float("nan")
    expected, found = train(healthy), train(beside)
    for name, value in expected.items():
        assert torch.equal(found[name][[0, 2]], value[[0, 2]]), name
    assert beside.finite().tolist() == [True, False, True]


def test_a_run_without_regulariser_or_clipping_takes_nothing_from_its_neighbours() -> None:
    """Errors that vanish (a contractive W_hh), and a neighbour with both remedies."""
    runs = [
        make_spec({"task.T": 100, "seed": r, "trainer.omega": 2.0 * r, "trainer.clip_norm": 0.1 if r else None})
        for r in range(2)
    ]
    together, alone = Slab(runs), Slab(runs[:1])
    for slab in (together, alone):
        slab.state.params["W_hh"].mul_(0.6)
        for _ in range(40):
            slab.advance()
    assert together.finite().all()
    for name, w in alone.state.params.items():
        assert torch.equal(together.state.params[name][0], w[0]), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_leaving_runs_do_not_change_those_that_stay(trainer: str) -> None:
    runs = specs(trainer)
    whole, part = Slab(runs), Slab(runs)
    for position in range(STEPS):
        whole.advance()
        if position == 10:
            part = part.select([0, 2])
        part.advance()
    for name, value in whole.state.flat().items():
        assert torch.allclose(part.state.flat()[name], value[[0, 2]], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_runs_that_join_begin_at_their_own_first_iteration(trainer: str) -> None:
    """A slab of runs that stand at different iterations is each of them on its own."""
    numbers = (
        {"trainer.noise": 0.1, "trainer.phases": "random"}
        if "phases" in make_spec(trainer=trainer).config["trainer"]
        else {}
    )
    runs = [make_spec(SMALL | numbers | {"seed": seed}, trainer=trainer) for seed in range(3)]
    early, late = Slab(runs[:2]), Slab(runs[2:])
    for _ in range(10):
        early.advance()
    merged = Slab.merge([early, late])
    for _ in range(STEPS - 10):
        merged.advance()
    alone = [train(Slab([spec]), steps) for spec, steps in zip(runs, (STEPS, STEPS, STEPS - 10), strict=True)]
    for r, found in enumerate(alone):
        for name, value in found.items():
            there = merged.loss_sum if name == "loss" else merged.state.flat()[name]
            assert torch.allclose(there[r], value[0], rtol=1e-9, atol=1e-12), name


def test_state_survives_flattening() -> None:
    slab = Slab(specs("tptt", optimizer="adam"))
    train(slab, 2)
    copy = State.from_flat(slab.state.flat())
    assert copy.params.keys() == slab.state.params.keys()
    assert all(torch.equal(copy.slots[n][s], v) for n, slots in slab.state.slots.items() for s, v in slots.items())


def test_validation_of_a_run_does_not_depend_on_its_neighbours() -> None:
    runs = [make_spec({"seed": seed, "task.T": 10, "train.validation_size": 3000}, trainer="tptt") for seed in range(3)]
    together = Slab(runs)
    for _ in range(60):
        together.advance()
    mistakes, seen, losses = together.validate([0, 1, 2], [False] * 3)
    for r, spec in enumerate(runs):
        alone = Slab([spec])
        for _ in range(60):
            alone.advance()
        wrong, looked, loss = alone.validate([r], [False])
        assert (wrong.item(), looked.item()) == (mistakes[r].item(), seen[r].item())
        assert loss.item() == pytest.approx(losses[r].item(), rel=1e-6)
    full, all_seen, _ = together.validate([0, 1, 2], [True, None, True])
    assert all_seen.tolist() == [3000, 0, 3000]
    assert (full >= mistakes)[[0, 2]].all()
