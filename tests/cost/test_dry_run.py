"""What --dry-run says of climbs: at most, bounded by what is published, and expected, from what is recorded."""

from __future__ import annotations

import pytest
from conftest import Make
from paper_cells import CELLS, the

from tprnn.cost import published as foresight
from tprnn.cost.estimate import Part
from tprnn.papers.recipes import recipe
from tprnn.protocols import depth, reproduce
from tprnn.store import Store

# ---- tprnn depth

CLIMB = ["task=temporal_order", "seed=0,1", "train.max_iterations=1000", "probe=none", "depth.max=40"]


@pytest.fixture
def recorded(make: Make) -> None:
    """bptt with other seeds: at T = 10 solved after 200 and 500 iterations, at T = 20 by none."""
    for T, seed, end in ((10, 7, 200), (10, 8, 500), (20, 7, 1000), (20, 8, 1000)):
        ended = ("solved", "solved") if T == 10 else ("not_solved", "max_iterations")
        changes = {"task.T": T, "seed": seed, "train.max_iterations": 1000}
        make(changes, iterations=end, status=ended[0], stopped_by=ended[1])


def parts(*words: str) -> list[Part]:
    """What `tprnn depth` would run in its whole climb."""
    plan, overrides = depth.parse(words)
    climbs = depth.climbs_of(depth.sweep([*overrides, f"task.T={plan.start}"]))
    seen: list[list[Part]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth.cost, "estimate", lambda *rungs: seen.append([part for rung in rungs for part in rung]))
        depth.prices(climbs, plan)
    return seen[-1]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("words", "iterations"),
    [
        # all end where the first is solved; the length that was never solved ends the climb
        (["trainer=bptt"], [200.0] * 2 + [1000.0] * 2 + [0.0] * 4),
        (["trainer=bptt", "depth.rung=all"], [350.0] * 2 + [1000.0] * 2 + [0.0] * 4),
        (["trainer=tptt"], [None] * 8),
    ],
    ids=str,
)
def test_a_climb_is_expected_to_go_as_recorded_ones(
    outputs: str, words: list[str], iterations: list[float | None]
) -> None:
    assert [part.expected for part in parts(*CLIMB, *words, f"outputs={outputs}")] == iterations


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("trainer", "told"),
    [
        ("bptt", "from recorded runs like these\n"),
        ("bptt,tptt", "from recorded runs like these for 1 of 2 climbs\n"),
        ("tptt", "expected: not known, no runs like these are recorded\n"),
    ],
)
def test_a_climb_says_what_its_expectation_rests_on(
    outputs: str, capsys: pytest.CaptureFixture[str], trainer: str, told: str
) -> None:
    assert depth.main([*CLIMB, f"trainer={trainer}", f"outputs={outputs}", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(told) == 2  # of the first rung, and of the whole climb
    assert printed.count("at most") == 4


# ---- tprnn reproduce

TABLE = "manchev2020/table1"


def climbs(budget: str, outputs: str, *words: str) -> tuple[reproduce.Request, list[reproduce.Climber]]:
    request = reproduce.parse([TABLE, f"budget={budget}", f"outputs={outputs}", "seeds=1", "T_max=1000", *words])
    return request, reproduce.climbers(request)


def rungs(request: reproduce.Request, found: list[reproduce.Climber]) -> tuple[list[list[Part]], str]:
    store = Store(found[0].spec.execution["outputs"])
    return reproduce.rungs(request, reproduce.standings(found, store), store)


def lengths(rungs: list[list[Part]]) -> list[int]:
    return [part.spec.config["task"]["T"] for rung in rungs for part in rung]


def test_a_climb_without_a_limit_is_counted_to_two_lengths_beyond_the_published(
    outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request, found = climbs("paper", outputs, "rows=temporal_order", "columns=BPTT")
    published = the(TABLE, "temporal_order", "BPTT").published
    assert published is not None
    assert lengths(rungs(request, found)[0]) == [*range(10, int(published.value or 0) + 30, 10)]
    words = [TABLE, "budget=paper", "rows=temporal_order", "columns=BPTT", "seeds=1", f"outputs={outputs}", "--dry-run"]
    reproduce.main([*words, "T_max=1000"])
    printed = capsys.readouterr().out
    assert "| 10 to 140 |" in " ".join(printed.split())
    assert "at most 1,400,000 run-iterations" in printed
    assert "climbs to 2 lengths beyond the published ones: one that goes on from there costs more" in printed
    reproduce.main([*words, "T_max=100"])  # the budget's own limit is no guess
    assert "beyond" not in capsys.readouterr().out


def test_a_climb_that_is_beyond_the_bound_has_its_next_length_to_do(outputs: str) -> None:
    request, (climber,) = climbs("paper", outputs, "rows=temporal_order", "columns=BPTT")
    for T in range(10, 200, 10):
        folder = Store(outputs).folder(climber.at(T))
        folder.open(climber.at(T))
        folder.write_result({"status": "solved", "iterations": 300})
    assert lengths(rungs(request, [climber])[0]) == [200]


@pytest.mark.parametrize("name", sorted({cell.recipe for cell in CELLS if cell.row.T is None}))
def test_every_climb_is_bounded_by_its_own_printed_length_or_a_control_by_its_row(name: str) -> None:
    table = recipe(name)
    for cell in table.cells:
        row = [one.published for one in table.cells if one.row == cell.row and one.published]
        own = [cell.published] if cell.published else row
        last = foresight.bound(table, cell, 10_000)
        assert last < 1000
        assert not own or last == max(int(one.value or 0) for one in own) + 2 * table.step
        assert foresight.bound(table, cell, 10) == 10


@pytest.mark.parametrize(
    ("column", "T", "expected"),
    [
        ("BPTT", 120, 46_500.0),  # printed for another table of the paper
        ("BPTT", 130, 100_000.0),  # the first that is not solved
        ("BPTT", 140, 0.0),
        ("TPTT", 150, 1_600.0),
        ("TPTT_frozen", 150, 10_000.0),  # a control: nobody has printed anything of it
        ("TPTT_frozen", 160, 100_000.0),
    ],
)
def test_without_records_a_climb_is_expected_to_go_as_printed(column: str, T: int, expected: float) -> None:
    cell = the(TABLE, "temporal_order", column)
    assert foresight.iterations(recipe(TABLE), cell, T, 100_000) == expected
    assert foresight.iterations(recipe(TABLE), cell, T, 500) <= 500


@pytest.mark.parametrize(
    ("column", "task", "expected"),
    [
        ("BPTT_best", "temporal_order", 100_000.0),
        ("TPTT_common", "temporal_order", 1_600.0),
        ("TPTT_common", "adding", 100_000.0),
    ],
)
def test_a_run_at_one_length_is_expected_to_take_what_is_printed_of_it(column: str, task: str, expected: float) -> None:
    """Not each point of a grid, of which the best is printed; not what the paper does not solve."""
    name = "manchev2020/table2"
    cell = the(name, task, column)
    assert foresight.iterations(recipe(name), cell, cell.first_T, 100_000) == expected


def test_recorded_runs_are_expected_to_repeat_and_come_before_what_is_printed(outputs: str) -> None:
    request, found = climbs("paper", outputs, "rows=temporal_order", "columns=BPTT,TPTT")
    (bptt, tptt) = found
    planned, basis = rungs(request, found)
    assert basis.startswith("what the paper prints")
    assert {part.expected for rung in planned for part in rung if part.spec.stack_key == tptt.spec.stack_key} >= {
        1600.0
    }
    for T, status in ((10, "solved"), (20, "not_solved")):
        spec = bptt.at(T).replace({"seed": 5})
        folder = Store(outputs).folder(spec)
        folder.open(spec)
        folder.write_result({"status": status, "stopped_by": "patience", "iterations": 100 * T})
    planned, basis = rungs(request, found)
    mine = [part for rung in planned for part in rung if part.spec.config["trainer"]["name"] == "bptt"]
    assert [part.expected for part in mine][:3] == [1000.0, 2000.0, 0.0]
    assert basis.startswith("recorded runs like these for 1 climbs, for 1 from what the paper prints")
