"""Tables of recorded runs: which runs are one line, and the numbers over their seeds."""

from __future__ import annotations

import statistics

import pytest
from conftest import MEMBERS, Make, make_spec
from table_cells import markdown_cells, table_of

from tprnn.config import flatten
from tprnn.report.rows.frame import group_rows, parse_where, rates_of, read_rows, select, short_names
from tprnn.report.tables.plain import iterations_to_solve, make_table

# ---- grouping


def test_runs_that_differ_in_seed_only_are_one_group(make: Make, outputs: str) -> None:
    for seed in range(3):
        make({"seed": seed, "trainer.alpha": 0.01})
        make({"seed": seed, "trainer.alpha": 0.1})
    table = table_of(outputs)
    assert [(line["alpha"], line["seeds"]) for line in table] == [("0.01", "3"), ("0.1", "3")]


def test_execution_keys_do_not_part_a_group(make: Make, outputs: str) -> None:
    make({"seed": 0, "threads": 1})
    make({"seed": 1, "threads": 2, "stack_size": 7})
    assert [line["seeds"] for line in table_of(outputs)] == ["2"]


def test_of_settings_that_another_rule_lacks_only_rates_and_what_is_no_default_are_columns(
    make: Make, outputs: str
) -> None:
    make(trainer="bptt")
    make({"trainer.noise": 0.25}, trainer="tptt")
    (first, second) = table_of(outputs)
    assert list(first)[:7] == ["trainer", "alpha", "alpha_i", "alpha_f", "alpha_g", "noise", "seeds"]
    assert list(first.values())[:6] == ["bptt", "0.001", "", "", "", ""]
    assert list(second.values())[:6] == ["tptt", "", "0.1", "0.01", "0.001", "0.25"]


@pytest.mark.parametrize("other", MEMBERS["trainer"])
def test_every_rate_of_every_rule_is_shown(make: Make, outputs: str, other: str) -> None:
    """In all formats, also where all runs that have the rate have the same, as defaults make it."""
    runs = [make(trainer=name).read_spec() for name in ("bptt", other)]
    table, (header, *lines) = table_of(outputs), markdown_cells(text := make_table(read_rows(outputs)[0]))
    for spec in runs:
        rates = [key.partition(".")[2] for key in spec.rates]
        values = {name: f"{spec.config['trainer'][name]:g}" for name in rates}
        assert rates
        assert rates_of(flatten(spec.config)) == spec.rates
        assert any(line.items() >= values.items() for line in table)
        in_lines = any({**dict(zip(header, line, strict=True))}.items() >= values.items() for line in lines)
        assert in_lines or all(f", {name} = {value}" in text.splitlines()[0] for name, value in values.items())


def test_what_all_runs_share_and_no_default_has_is_said(make: Make, outputs: str) -> None:
    for seed in (0, 1):
        make(
            {"seed": seed, "trainer.noise": 0.25, "train.patience": 7, "trainer.rate_factors": {"W_hh": 0.1}},
            trainer="tptt",
        )
    caption = make_table(read_rows(outputs)[0]).splitlines()[0]
    for told in ("alpha_i = 0.1", "alpha_f = 0.01", "alpha_g = 0.001", "noise = 0.25", "patience = 7", "W_hh = 0.1"):
        assert told in caption
    assert "p_g" not in caption
    (line,) = table_of(outputs)
    assert (line["noise"], line["patience"], line["rate_factors.W_hh"]) == ("0.25", "7", "0.1")


def test_rates_that_nobody_chose_rank_no_rules(make: Make, outputs: str) -> None:
    def note() -> str:
        return make_table(read_rows(outputs)[0]).partition("Rates of ")[2].partition(":")[0]

    make(trainer="bptt")
    assert note() == ""  # no comparison
    make({"trainer.alpha_i": 0.5}, trainer="tptt")
    assert note() == "bptt"
    make(trainer="tptt_hx")
    assert note() == "bptt, tptt_hx"


def test_every_setting_that_differs_is_a_column(make: Make, outputs: str) -> None:
    make({"trainer.freeze": ["W_hh", "b_h"]})
    make({"trainer.rate_factors": {"W_hh": 0.01}})
    make({"dtype": "float64", "task.T": 30, "train.max_iterations": 500})
    make(trainer="tptt")
    table = table_of(outputs)
    assert set(table[0]) >= {"T", "trainer", "freeze", "rate_factors.W_hh", "dtype", "max_iterations"}
    labels = list(table[0])[: list(table[0]).index("seeds")]
    assert "rate_factors" not in labels  # {} is no setting
    assert len({tuple(line[label] for label in labels) for line in table}) == 4
    assert "[W_hh, b_h]" in [line["freeze"] for line in table]


def test_a_run_from_before_a_setting_came_is_of_the_group_of_those_that_do_as_it_did() -> None:
    """What such a setting says of old runs is no part of a signature (`unsigned`)."""
    old = flatten(make_spec({"seed": 0}).as_dict()) | {"status": "solved"}
    same = old | {"seed": 1, "trainer.later": "as_ever", "unsigned": ["trainer.later"]}
    (group,) = group_rows([old, same])
    assert len(group.rows) == 2
    groups = group_rows([old, same, old | {"seed": 0, "trainer.later": "otherwise"}])
    assert [(group.labels, len(group.rows)) for group in groups] == [
        ({"later": "as_ever"}, 2),
        ({"later": "otherwise"}, 1),
    ]


def test_two_names_of_one_run_are_one_group(make: Make, outputs: str) -> None:
    hx = make_spec(trainer="tptt_hx").config["trainer"]
    rates = {f"trainer.{key}": hx[key] for key in ("alpha_i", "alpha_f", "alpha_g", "wxh")}
    make({"seed": 0}, trainer="tptt_hx")
    make({"seed": 1, **rates}, trainer="tptt")
    assert [line["seeds"] for line in table_of(outputs)] == ["2"]


def test_lines_are_in_the_order_of_their_numbers(make: Make, outputs: str) -> None:
    for T in (100, 20, 30):
        make({"task.T": T})
    assert [line["T"] for line in table_of(outputs)] == ["20", "30", "100"]


def test_short_names_stay_unambiguous() -> None:
    keys = ["seed", "task.name", "task.reading", "trainer.reading", "trainer.rate_factors.W_hh", "model.W_hh"]
    names = short_names(keys)
    assert len(set(names.values())) == len(keys)
    assert [names[key] for key in keys[:3]] == ["seed", "task", "task.reading"]


def test_an_ambiguous_setting_keeps_its_full_name(make: Make, outputs: str) -> None:
    make({"task.reading": "paper"}, trainer="tptt")
    make({"task.reading": "released"}, trainer="tptt")
    assert [line["task.reading"] for line in table_of(outputs)] == ["paper", "released"]


# ---- numbers


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_median_least_and_most_over_seeds(make: Make, outputs: str, count: int) -> None:
    iterations = [700, 300, 900, 100, 500, 1100, 200][:count]
    accuracy = [0.9993, 1.0, 0.25, 0.125, 0.5, 0.75, 1 / 3][:count]
    seconds = [1.5, 2.25, 100.125, 4.0, 1 / 7, 3.0, 2.0][:count]
    for seed in range(count):
        make({"seed": seed}, iterations=iterations[seed], accuracy=accuracy[seed], seconds=seconds[seed])
    (line,) = table_of(outputs)
    expected = {
        "seeds": count,
        "solved": count,
        "iterations_median": statistics.median(iterations),
        "iterations_min": min(iterations),
        "iterations_max": max(iterations),
        "score_median": statistics.median(accuracy),
        "score_min": min(accuracy),
        "score_max": max(accuracy),
        "seconds_median": statistics.median(seconds),
    }
    assert {key: float(line[key]) for key in expected} == expected


@pytest.mark.parametrize(
    ("solved", "unsolved", "median", "is_bound", "shown"),
    [
        ([100, 200, 300], [], 200, False, "200 [100–300]"),
        ([100, 900], [500], 900, False, "900 [100–>500]"),  # a failure at 500 is longer than a success at 900
        ([100], [500, 500], 500, True, ">500 [100–>500]"),
        ([100], [500], 100, True, ">100 [100–>500]"),
        ([100, 200], [500, 500], 200, True, ">200 [100–>500]"),
        ([], [500, 700], 500, True, ">500 [>500–>700]"),
        ([], [500], 500, True, ">500"),
        ([100, 400], [], 250, False, "250 [100–400]"),
    ],
)
def test_an_unsolved_run_counts_as_longer_than_any_solved_one(
    make: Make, outputs: str, solved: list[int], unsolved: list[int], median: int, is_bound: bool, shown: str
) -> None:
    for seed, iterations in enumerate([*solved, *unsolved]):
        make({"seed": seed}, status="solved" if seed < len(solved) else "not_solved", iterations=iterations)
    rows, _ = read_rows(outputs)
    spread = iterations_to_solve(rows)
    assert spread is not None
    assert (spread.median, spread.median_is_bound) == (median, is_bound)
    header, line = markdown_cells(make_table(rows))
    assert line[header.index("iterations")] == shown
    assert line[header.index("solved")] == f"{len(solved)}/{len(solved) + len(unsolved)}"


def test_unfinished_runs_are_counted_and_enter_no_number(make: Make, outputs: str) -> None:
    make({"seed": 0}, iterations=400, accuracy=0.5)
    make({"seed": 1}, status="diverged", iterations=700, accuracy=0.25)
    make({"seed": 2}, status="interrupted", iterations=9000, accuracy=0.9)
    make({"seed": 3}, status="failed", iterations=None, accuracy=None)
    make({"seed": 4}, status=None)
    with make({"seed": 5}, status=None).lock(), make({"seed": 6}, status="interrupted").lock():
        (line,) = table_of(outputs)
        header, cells = markdown_cells(make_table(read_rows(outputs)[0]))
    expected = {"seeds": 2, "solved": 1, "interrupted": 1, "failed": 1, "running": 2, "started": 1}
    assert {key: int(line[key]) for key in expected} == expected
    assert line["score_median"] == str(statistics.median([0.5, 0.25]))
    assert cells[header.index("unfinished")] == "1 interrupted, 1 failed, 2 running, 1 started"


def test_a_group_without_a_finished_run_is_shown(make: Make, outputs: str) -> None:
    make(status="failed", iterations=None, accuracy=None, seconds=None)
    header, cells = markdown_cells(make_table(read_rows(outputs)[0]))
    assert dict(zip(header, cells, strict=True)) == {
        "seeds": "0",
        "solved": "0/0",
        "iterations": "–",
        "accuracy (%)": "–",
        "seconds": "–",
        "unfinished": "1 failed",
    }
    (line,) = table_of(outputs)
    assert line["iterations_median"] == line["score_median"] == line["seconds_median"] == ""


def test_numbers_that_are_not_finite_leave_a_table(make: Make, outputs: str) -> None:
    make({"seed": 0}, status="diverged", accuracy=float("nan"), loss=float("nan"))
    make({"seed": 1}, status="diverged", accuracy=0.5, loss=float("inf"))
    assert [line["score_median"] for line in table_of(outputs)] == ["0.5"]


def test_a_tree_of_two_hundred_runs_is_summarised_group_by_group(make: Make, outputs: str) -> None:
    written: dict[tuple[str, str], list[int]] = {}
    for number in range(200):
        seed, rest = number % 5, number // 5
        alpha, T = [1e-5, 1e-4, 1e-3, 0.01, 0.1][rest % 5], 10 * (1 + rest // 5)
        iterations = 100 * (1 + number * 37 % 101)
        make({"seed": seed, "task.T": T, "trainer.alpha": alpha}, iterations=iterations)
        written.setdefault((str(T), f"{alpha:g}"), []).append(iterations)
    found = {(line["T"], line["alpha"]): float(line["iterations_median"]) for line in table_of(outputs)}
    assert found == {key: statistics.median(values) for key, values in written.items()}


# ---- machines

EPYC = {"cpu": "AMD EPYC", "instructions": "AVX512", "blas": "MKL 2024.2", "system": "Linux-6.1"}


def test_runs_of_different_machines_are_different_groups_told_apart_by_what_differs(make: Make, outputs: str) -> None:
    for seed in range(4):
        machine = EPYC if seed < 3 else EPYC | {"cpu": "Intel Xeon", "instructions": "AVX2"}
        make({"seed": seed}, machine=machine)
    table = table_of(outputs)
    assert list(table[0])[:2] == ["cpu", "instructions"]
    assert [(line["cpu"], line["seeds"]) for line in table] == [("AMD EPYC", "3"), ("Intel Xeon", "1")]


def test_runs_of_one_machine_and_of_unknown_ones_are_one_group(make: Make, outputs: str) -> None:
    make({"seed": 0})
    make({"seed": 1}, machine=EPYC)
    make({"seed": 2}, machine=EPYC | {"system": "Linux-6.2"})  # decides no bits
    (line,) = table_of(outputs)
    assert (line["seeds"], "cpu" in line) == ("3", False)


def test_runs_are_chosen_by_their_machine(make: Make, outputs: str) -> None:
    make({"seed": 0}, machine=EPYC)
    make({"seed": 1}, machine=EPYC | {"cpu": "Intel Xeon"})
    make({"seed": 2})
    rows, _ = read_rows(outputs)
    chosen = select(rows, parse_where(["cpu=Intel Xeon"]))
    assert [row["seed"] for row in chosen] == [1]
    assert [row["seed"] for row in select(rows, parse_where(["instructions=AVX512"]))] == [0, 1]
