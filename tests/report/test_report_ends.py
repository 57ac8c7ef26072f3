"""How runs end, by kind: what counts as not solved, what bounds the iterations to a solution, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Make
from table_cells import markdown_cells, table_of

from tprnn.report.rows.frame import read_rows
from tprnn.report.tables.plain import ENDS, make_table

CUT = {"status": "not_solved", "stopped_by": "max_iterations", "iterations": 500}
OUT_OF_TIME = {"status": "not_solved", "stopped_by": "max_seconds", "iterations": 400}
PATIENCE = {"status": "not_solved", "stopped_by": "patience", "iterations": 300}
NAN = {"status": "diverged", "stopped_by": "not_finite", "iterations": 100}
RADIUS = {"status": "diverged", "stopped_by": "spectral_radius", "iterations": 200}
LEFT = {"status": "interrupted", "stopped_by": "decided", "iterations": 150, "accuracy": None}
SOLVED = {"status": "solved", "iterations": 150}


def shown(outputs: str) -> dict[str, str]:
    header, cells = markdown_cells(make_table(read_rows(outputs)[0]))
    return dict(zip(header, cells, strict=True))


@pytest.mark.parametrize(
    ("ends", "counts", "iterations"),
    [
        ([NAN] * 3, {"diverged": 3}, "never"),  # its 100 iterations are no bound
        ([NAN, RADIUS], {"diverged": 2}, "never"),
        ([CUT, OUT_OF_TIME, PATIENCE], {"cut": 2, "out_of_patience": 1}, ">400 [>300–>500]"),
        ([SOLVED, SOLVED, NAN], {"diverged": 1}, "150 [150–never]"),
        ([SOLVED, NAN, NAN], {"diverged": 2}, "never [150–never]"),
        ([SOLVED, NAN], {"diverged": 1}, ">150 [150–never]"),
        ([SOLVED, CUT, NAN], {"diverged": 1, "cut": 1}, ">500 [150–never]"),  # cut at 500 is before never
        ([SOLVED, LEFT, LEFT], {"left": 2}, ">150 [150–>150]"),
    ],
    ids=str,
)
def test_ends_are_counted_by_kind(
    make: Make, outputs: str, ends: list[dict[str, Any]], counts: dict[str, int], iterations: str
) -> None:
    for seed, end in enumerate(ends):
        make({"seed": seed, "train.max_iterations": 500}, **end)
    line, (full,) = shown(outputs), table_of(outputs)
    solved = ends.count(SOLVED)
    assert line["solved"] == f"{solved}/{len(ends)}"
    assert {end: int(line[named]) for end in ENDS if (named := end.replace("_", " ")) in line} == counts
    assert {end: int(full[end]) for end in ENDS} == dict.fromkeys(ENDS, 0) | counts
    assert solved + sum(counts.values()) == int(full["seeds"]) == len(ends)
    assert line["iterations"] == iterations


def test_a_note_says_what_each_end_is(make: Make, outputs: str) -> None:
    for seed, end in enumerate([SOLVED, CUT, NAN, PATIENCE, LEFT]):
        make({"seed": seed, "train.max_iterations": 500}, **end)
    text = make_table(read_rows(outputs)[0])
    for end, told in ENDS.items():
        assert f"{end.replace('_', ' ')}: {told}" in text
    assert "signal" not in text


def test_bounds_are_marked_in_csv_and_never_is_infinite(make: Make, outputs: str) -> None:
    for seed, end in enumerate([SOLVED, CUT, NAN]):
        make({"seed": seed, "train.max_iterations": 500}, **end)
    (line,) = table_of(outputs)
    kinds = ("median", "min", "max")
    assert [line[f"iterations_{kind}"] for kind in kinds] == ["500", "150", "inf"]
    assert [line[f"iterations_{kind}_is_bound"] for kind in kinds] == ["true", "false", "false"]


def test_a_run_that_a_climb_left_is_no_broken_off_one(make: Make, outputs: str) -> None:
    make({"seed": 0}, **LEFT)
    make({"seed": 1}, **LEFT | {"stopped_by": "signal"})
    assert [row["status"] for row in read_rows(outputs)[0]] == ["left", "interrupted"]
    line = shown(outputs)
    assert (line["left"], line["unfinished"], line["accuracy (%)"]) == ("1", "1 interrupted", "–")
    (chosen,) = table_of(outputs, "status=left")
    assert (chosen["seeds"], chosen["left"]) == ("1", "1")


def test_a_left_run_is_seen_as_of_a_smaller_budget_as_cut_there(make: Make, outputs: str) -> None:
    folder = make({"train.max_iterations": 900}, **LEFT)
    folder.append_metrics([{"iteration": n, "loss": 1.0, "accuracy": 0.5} for n in (50, 100, 150)])
    for limit, end in ((100, "cut"), (150, "left"), (900, "left")):
        (line,) = table_of(outputs, f"max_iterations={limit}")
        assert [kind for kind in ENDS if int(line[kind])] == [end], limit
