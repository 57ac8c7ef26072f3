"""Seeds: `seed` sets everything; `init_seed` and `data_seed` hold one of two still while the other varies."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import torch
import yaml
from conftest import MEMBERS, Make, make_spec
from table_cells import table_of

from tprnn.compose import compose, points
from tprnn.config import RunSpec
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import DamagedFile, UserError
from tprnn.report.figures.runs import Curve, data_csv
from tprnn.report.rows.frame import group_rows, read_rows
from tprnn.store import RunFolder, stored_spec
from tprnn.trainers.base import State

# (override lines, old signature, signature and family of the run as they were when there was one seed)
RECORDED = [
    (["task=adding", "trainer=tptt"], "037ec86b43", "7f4b2bc0e89c", "e5baa2f24407"),
    (["task=temporal_order", "trainer=bptt", "seed=3", "dtype=float64"], "7f931d8853", "a1f14c16ba43", "47cdd0e7b460"),
    (
        ["task=copy_memory", "trainer=tptt_many", "optimizer=adam", "probe=all", "seed=7"],
        "00301a6fbb",
        "8b6d3d062de2",
        "a8213637d916",
    ),
]


def ensemble_of(trainer: str, changes: dict[str, Any]) -> Ensemble:
    """One small run; what its rule can draw at an iteration, it draws."""
    settings = make_spec(trainer=trainer).config["trainer"]
    drawing = {"trainer.noise": 0.1, "trainer.phases": "random"}
    drawing = {key: value for key, value in drawing.items() if key.removeprefix("trainer.") in settings}
    return Ensemble([make_spec({"model.H": 6, "train.batch_size": 4, **drawing, **changes}, trainer=trainer)])


# ---- which run it is


@pytest.mark.parametrize(("lines", "old", "signature", "family"), RECORDED)
def test_a_run_of_one_seed_has_the_signature_that_it_always_had(
    lines: list[str], old: str, signature: str, family: str
) -> None:
    spec = compose(lines)
    assert spec.config["init_seed"] is spec.config["data_seed"] is None
    assert (spec.old_signature, spec.signature, spec.family) == (old, signature, family)


def test_a_run_recorded_before_there_were_two_seeds_is_found(run: RunFolder) -> None:
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    spec = stored_spec(run.path, config)
    for key in ("init_seed", "data_seed"):
        assert config.pop(key) is None
    assert stored_spec(run.path, config).signature == spec.signature == RunSpec.from_config(config).signature


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 3}, {"seed": 3, "init_seed": 3}),
        ({"seed": 3}, {"seed": 5, "init_seed": 3, "data_seed": 3}),
        ({"seed": 1, "init_seed": 0}, {"seed": 0, "data_seed": 1}),
        ({"seed": 7, "init_seed": 0, "data_seed": 1}, {"seed": 8, "init_seed": 0, "data_seed": 1}),
    ],
)
def test_runs_that_draw_the_same_are_one_run(one: dict[str, int], other: dict[str, int]) -> None:
    first, second = make_spec(one), make_spec(other)
    assert (first.signature, first.folder_name) == (second.signature, second.folder_name)


def test_a_run_of_two_seeds_is_another_run_in_a_stack_with_those_of_one() -> None:
    specs = points(["task=adding", "trainer=bptt", "init_seed=0,1", "data_seed=0,1"])
    assert len({spec.signature for spec in specs}) == 4
    assert [spec.short_name.rpartition("-")[2] for spec in specs] == ["s0", "i0d1", "i1d0", "s1"]
    assert len({spec.stack_key for spec in specs}) == 1
    # no table of a paper takes one for a run of a seed of its own
    one, *_, other = specs
    assert one.family == other.family not in {spec.family for spec in specs[1:3]}


@pytest.mark.parametrize("key", ["seed", "init_seed", "data_seed"])
@pytest.mark.parametrize(("value", "says"), [(-1, "at least 0"), ("x", "whole number"), (0.5, "whole number")])
def test_every_seed_is_checked(key: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=f"{key}: expected (a )?{says}"):
        make_spec({key: value})


@pytest.mark.parametrize("key", ["seed", "init_seed", "data_seed"])
def test_a_stored_seed_that_is_no_number_is_damage(run: RunFolder, key: str) -> None:
    with pytest.raises(DamagedFile, match=f"{key} is 'x'"):
        stored_spec(run.path, run.read_config() | {key: "x"})


# ---- what is drawn from which


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_the_start_is_of_one_seed_and_all_that_is_drawn_later_of_the_other(trainer: str) -> None:
    mixed, start, data = (
        ensemble_of(trainer, seeds) for seeds in ({"init_seed": 1, "data_seed": 2}, {"seed": 1}, {"seed": 2})
    )
    for name, w in start.state.flat().items():
        assert torch.equal(mixed.state.flat()[name], w), name
    # the run of the data's seed, set on the other's start, goes the same way
    moved = Ensemble(data.specs, state=State.from_flat({name: w.clone() for name, w in start.state.flat().items()}))
    for _ in range(5):
        for ensemble in (mixed, moved, start):
            ensemble.advance()
    for name, w in moved.state.flat().items():
        assert torch.equal(mixed.state.flat()[name], w), name
    assert not torch.equal(mixed.state.params["W_hy"], start.state.params["W_hy"])
    for stream in ("validation", "test"):
        assert torch.equal(mixed.draw(stream, 0, 10)[0].inputs, data.draw(stream, 0, 10)[0].inputs)


# ---- reports


def test_runs_that_differ_in_any_seed_are_one_line_of_a_report(make: Make, outputs: str) -> None:
    for init in range(2):
        for data in range(2):
            make({"init_seed": init, "data_seed": data})
    assert [line["seeds"] for line in table_of(outputs)] == ["4"]


def test_both_seeds_of_every_run_are_columns_of_its_row(make: Make, outputs: str) -> None:
    make({"seed": 4})
    make({"seed": 4, "data_seed": 5})
    make({"seed": 9, "init_seed": 6, "data_seed": 6})
    rows, _ = read_rows(outputs)
    assert sorted((row["init_seed"], row["data_seed"]) for row in rows) == [(4, 4), (4, 5), (6, 6)]
    assert [row["seed"] for row in rows if row["init_seed"] == 6] == [6]
    texts = {group_rows([row])[0].seeds for row in rows}
    assert texts == {"seed 4", "init_seed 4, data_seed 5", "seed 6"}


@pytest.mark.parametrize(
    ("changes", "columns"), [({"seed": 5}, ["seed"]), ({"data_seed": 5}, ["init_seed", "data_seed"])]
)
def test_drawn_data_name_the_seeds_that_tell_runs_apart(
    make: Make, outputs: str, changes: dict[str, int], columns: list[str]
) -> None:
    make()
    make(changes)
    rows, _ = read_rows(outputs)
    lines = csv.DictReader(io.StringIO(data_csv([Curve(row, [{"iteration": 1, "loss": 0.5}]) for row in rows])))
    found = [{key: value for key, value in line.items() if key.endswith("seed")} for line in lines]
    assert all(list(line) == columns for line in found)
    assert sorted(list(line.values()) for line in found) == [
        ["0", "0"][: len(columns)],
        ["0", "5"][-len(columns) :],
    ]
