"""Climbs in depth, with a trainer that knows which lengths are solved."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_trainer import Install, Solves, Trainer, lengths, up_to

from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.protocols import depth

RUN = ["task=random_permutation", "trainer=bptt"]
BOTH = ["task=random_permutation", "trainer=tptt,bptt", "seed=0,1"]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(solves: Solves) -> Trainer:
        trainer = Trainer(solves)
        monkeypatch.setattr(depth, "run_all", trainer)
        return trainer

    return install


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    return f"outputs={tmp_path}/outputs"


def test_a_climb_grows_by_its_step_and_stops_at_the_first_failure(train: Install, outputs: str) -> None:
    trainer = train(up_to(35))
    assert depth.main([*RUN, "depth.start=5", "depth.step=15", outputs]) == 0
    assert lengths(trainer) == [{5}, {20}, {35}, {50}]


def test_a_climb_goes_on_while_any_run_solves_a_length(train: Install, outputs: str) -> None:
    trainer = train(lambda spec: spec.config["seed"] == 1 and spec.config["task"]["T"] <= 20)
    depth.main([*RUN, "seed=0,1,2", outputs])
    assert lengths(trainer) == [{10}, {20}, {30}]
    assert all([spec.config["seed"] for spec in call] == [0, 1, 2] for call in trainer.calls)


@pytest.mark.parametrize(("words", "expected"), [([], True), (["depth.rung=all"], False)])
def test_a_rung_ends_with_its_first_success_unless_all_are_asked_for(
    train: Install, outputs: str, words: list[str], expected: bool
) -> None:
    trainer = train(up_to(10))
    depth.main([*RUN, "seed=0,1", outputs, *words])
    assert trainer.first_solved is expected


def test_a_dry_climb_says_what_it_costs_and_trains_nothing(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(10))
    words = [*RUN, "seed=0,1", "train.max_iterations=1000", "depth.max=30", outputs]
    assert depth.main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "T = 10:\nat most 2,000 run-iterations" in printed
    assert "T = 10 to 30:\nat most 6,000 run-iterations" in printed
    assert not trainer.calls


def test_a_dry_climb_does_not_count_what_is_done(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(up_to(10))
    words = [*RUN, "seed=0,1", "depth.max=40", outputs]
    assert depth.main([*words, "depth.max=10"]) == 0
    capsys.readouterr()
    depth.main([*words, "--dry-run"])
    printed = capsys.readouterr().out
    assert "T = 10:\nnothing to do\n" in printed
    assert f"at most {3 * 2 * 100_000:,} run-iterations" in printed
    depth.main(words)  # T = 20 is not solved: the climb has ended
    capsys.readouterr()
    depth.main([*words, "--dry-run"])
    assert "T = 10 to 40:\nnothing to do\n" in capsys.readouterr().out


def test_runs_that_diverged_are_told_from_those_that_ran_out(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(10))
    trainer.status = "diverged"
    depth.main([*RUN, "seed=0,1", outputs])
    assert [(row["solved"], row["diverged"]) for row in table(capsys.readouterr().out)] == [("2/2", "0"), ("0/2", "2")]


def test_its_best_length_has_another_name_than_the_papers_statistic(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is the best of all runs, the other a median over seeds."""
    train(up_to(10))
    depth.main([*RUN, outputs])
    assert "t_max" not in capsys.readouterr().out
    depth.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the longest length up to which ANY of its runs" in told
    assert "The t_max of 'tprnn report --paper' is another number" in told


def test_each_rung_has_all_points_of_the_grid(train: Install, outputs: str) -> None:
    trainer = train(lambda spec: spec.config["trainer"]["alpha"] == 0.01 and spec.config["task"]["T"] <= 10)
    depth.main([*RUN, "grid=manchev2020", "seed=0,1", outputs])
    for call in trainer.calls:
        points = {(spec.config["trainer"]["alpha"], spec.config["seed"]) for spec in call}
        assert points == {(10.0**-k, seed) for k in range(1, 7) for seed in (0, 1)}


def test_the_table_of_a_climb_says_how_many_solved_and_what_was_fastest(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(lambda spec: spec.config["trainer"]["alpha"] == 0.01 and spec.config["task"]["T"] <= 20)
    depth.main([*RUN, "trainer.alpha=0.1,0.01", "seed=3,4", outputs])
    printed = capsys.readouterr().out
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1]) for row in rows[1:]] == [("10", "2/4"), ("20", "2/4"), ("30", "0/4")]
    assert rows[1][3:] == ["103", "trainer.alpha=0.01 seed=3"]
    assert printed.splitlines()[-1] == "best T = 20 with trainer.alpha=0.01 seed=3"


def test_a_climb_to_its_last_length_is_a_lower_bound(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(1000))
    depth.main([*RUN, "depth.max=25", outputs])
    assert lengths(trainer) == [{10}, {20}]
    assert capsys.readouterr().out.splitlines()[-1].startswith("best T ≥ 20 (depth.max reached")


def test_a_climb_without_success_says_so(train: Install, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    train(up_to(0))
    assert depth.main([*RUN, outputs]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "best T: none, T = 10 is not solved"


def test_failed_runs_make_the_exit_code_one(train: Install, outputs: str) -> None:
    trainer = train(up_to(10))
    trainer.status = "failed"
    assert depth.main([*RUN, outputs]) == 1


def test_an_interrupted_climb_shows_how_far_it_came(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(100))
    trainer.interrupt_at = 2
    with pytest.raises(Interrupted):
        depth.main([*RUN, outputs])
    assert capsys.readouterr().out.splitlines()[-1] == "best T ≥ 20"


def test_a_climb_repeated_trains_nothing_again(train: Install, outputs: str) -> None:
    train(up_to(20))
    depth.main([*RUN, outputs])
    again = train(up_to(20))
    depth.main([*RUN, outputs])
    assert lengths(again) == [{10}, {20}, {30}]
    assert not again.trained


def tops(**lengths: int) -> Solves:
    """Each trainer solves up to a length of its own."""
    return lambda spec: spec.config["task"]["T"] <= lengths[spec.config["trainer"]["name"]]


def table(printed: str) -> list[dict[str, str]]:
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    header, *rows = ([part.strip() for part in line.split("|")[1:-1]] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_each_trainer_has_a_climb_of_its_own(train: Install, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = train(tops(tptt=20, bptt=10))
    assert depth.main([*BOTH, outputs]) == 0
    found = [{(spec.config["trainer"]["name"], spec.config["task"]["T"]) for spec in call} for call in trainer.calls]
    # no call of two trainers, for in it one would decide the other's rung
    assert found == [{("tptt", 10)}, {("bptt", 10)}, {("tptt", 20)}, {("bptt", 20)}, {("tptt", 30)}]
    printed = capsys.readouterr().out
    rows = table(printed)
    assert list(rows[0]) == ["T", "trainer", "solved", "fastest", "iterations", "parameters"]
    assert [(row["T"], row["trainer"], row["solved"], row["parameters"]) for row in rows] == [
        ("10", "tptt", "2/2", "seed=0"),
        ("10", "bptt", "2/2", "seed=0"),
        ("20", "tptt", "2/2", "seed=0"),
        ("20", "bptt", "0/2", "–"),
        ("30", "tptt", "0/2", "–"),
    ]
    assert printed.splitlines()[-2:] == [
        "trainer=tptt: best T = 20 with seed=0",
        "trainer=bptt: best T = 10 with seed=0",
    ]


def test_rungs_that_go_to_their_ends_are_one_call_for_all_climbs(train: Install, outputs: str) -> None:
    trainer = train(tops(tptt=20, bptt=10))
    depth.main([*BOTH, "depth.rung=all", outputs])
    assert [len(call) for call in trainer.calls] == [4, 4, 2]


def test_rates_grids_and_seeds_are_points_of_a_climb_and_all_else_is_not(
    train: Install, outputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "mine.yaml").write_text("name: mine\naxes: {train.batch_size: [5, 7]}\n")
    trainer = train(up_to(0))
    words = ["trainer=tptt,bptt", "model.H=3,4", "trainer.tptt.alpha_i=1,2", "grid=mine", "init_seed=0,1"]
    depth.main([RUN[0], *words, f"hydra.searchpath=['file://{tmp_path}']", outputs])
    assert [len(call) for call in trainer.calls] == [8, 8, 4, 4]
    assert [(row["trainer"], row["model.H"], row["solved"]) for row in table(capsys.readouterr().out)] == [
        ("tptt", "3", "0/8"),
        ("tptt", "4", "0/8"),
        ("bptt", "3", "0/4"),
        ("bptt", "4", "0/4"),
    ]


def test_a_climb_is_told_by_what_no_other_has_and_a_point_by_what_no_other_of_the_climb_has(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(lambda spec: spec.config["trainer"].get("alpha_i") == 2.0 and spec.config["task"]["T"] == 10)
    sets = "{trainer: tptt, trainer.freeze: [W_hh]}, {trainer: tptt}, {trainer: tptt_hx}"
    words = [RUN[0], f"points=[{sets}]", "trainer.alpha_i=1,2", "seed=4", outputs]
    depth.main(words)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "trainer=tptt trainer.freeze=['W_hh']: best T = 10 with trainer.alpha_i=2.0",
        "trainer=tptt trainer.freeze=[]: best T = 10 with trainer.alpha_i=2.0",
        "trainer=tptt_hx: best T = 10 with trainer.alpha_i=2.0",
    ]


def test_one_run_needs_no_parameters(train: Install, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    train(up_to(10))
    depth.main([*RUN, outputs])
    printed = capsys.readouterr().out
    assert list(table(printed)[0]) == ["T", "solved", "fastest", "iterations"]
    assert printed.splitlines()[-1] == "best T = 10"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*RUN, "task.T=20"], "task.T"),
        ([*RUN, "task.random_permutation.T=20"], "task.T: the climb sets it"),
        ([*RUN, "depth.stat=10"], "nearest: depth.start"),
        ([*RUN, "depth.rung=first"], "depth.rung: 'first' is not a choice; nearest: first_solved"),
        ([*RUN, "depth.step=0"], "depth.step: expected a whole number"),
        ([*RUN, "depth.max"], "depth.max: expected a whole number"),
        ([*RUN, "depth.start=50", "depth.max=40"], "depth.max"),
        ([*RUN, "trainer.alfa=1"], "trainer.alpha"),
        (["task=adding", "trainer=tptt", "depth.start=3"], "adding needs"),
        (["task=adding"], "trainer"),
    ],
)
def test_bad_climbs_are_refused_before_anything_is_trained(
    train: Install, outputs: str, words: list[str], says: str
) -> None:
    trainer = train(up_to(100))
    with pytest.raises(UserError, match=says):
        depth.main([*words, outputs])
    assert not trainer.calls
