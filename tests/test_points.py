"""Command lines that compare members: settings of their own, sets of points, and what is said where one is wrong."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tprnn import cli, compose
from tprnn.config import RunSpec, flatten
from tprnn.engine.runs import Outcome
from tprnn.errors import UserError
from tprnn.points import at_points
from tprnn.protocols.search import command as search
from tprnn.protocols.search.command import Plan
from tprnn.protocols.search.studies import Search

TASK = "task=temporal_order"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunSpec]:
    """The runs that `tprnn train` was asked for; none is trained. The working folder is empty."""
    specs: list[RunSpec] = []

    def run_all(asked: Sequence[RunSpec], executor: Any = None) -> list[Outcome]:
        specs.extend(asked)
        return [Outcome(spec, "solved", {"accuracy": 1.0}) for spec in asked]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tprnn.sweep.run.run_all", run_all)
    return specs


def values(specs: Sequence[RunSpec], *keys: str) -> list[tuple[Any, ...]]:
    """What each run has under some dotted keys, None where it has none."""
    return [tuple(flatten(spec.config).get(key) for key in keys) for spec in specs]


def refused(lines: Sequence[str], says: str) -> None:
    """The lines are refused with all parts of `says`, between asterisks."""
    with pytest.raises(UserError) as error:
        compose.points(lines)
    for part in says.split("*"):
        assert part in str(error.value)


# ---- a setting is checked where members are chosen


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        (f"{TASK} trainer=tptt,tptt_hx trainer.alpha_i=0.3", "trainer.alpha_i", [0.3, 0.3]),
        (f"{TASK} trainer=tptt,tptt_hx 'trainer={{alpha_i: 0.3}}'", "trainer.alpha_i", [0.3, 0.3]),
        ("task=adding,temporal_order trainer=bptt task.T=30", "task.T", [30, 30]),
        ("task=adding,temporal_order trainer=bptt task.T=30,40", "task.T", [30, 40, 30, 40]),
        (f"{TASK} trainer=bptt optimizer=nesterov,adam optimizer.adam.beta1=0.7", "optimizer.beta1", [None, 0.7]),
        (f"{TASK} trainer=bptt model=srn,srn model.H=7", "model.H", [7, 7]),
        (f"{TASK} 'trainer=glob(tptt_h*)' trainer.freeze=[W_hh,b_h]", "trainer.freeze", [["W_hh", "b_h"]]),
        (f"{TASK} trainer=tptt,bptt trainer.rate_factors.W_hh=0.5", "trainer.rate_factors.W_hh", [0.5, 0.5]),
        (f"{TASK} probe=all,none probe.layers=true trainer=bptt", "probe.layers", [True, True]),
    ],
)
def test_a_setting_of_swept_members_reaches_every_point(
    trained: list[RunSpec], line: str, key: str, expected: list[Any]
) -> None:
    assert cli.main(["train", "-m", *shlex.split(line)]) == 0
    assert values(trained, key) == [(value,) for value in expected]


def test_a_value_for_one_member_is_refused_where_the_sweeper_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # Hydra's sweeper writes a file
    line = "trainer=tptt,bptt trainer.tptt.alpha_i=1 hydra/sweeper=basic"
    assert cli.main(["train", "-m", TASK, *line.split()]) == 2
    told = capsys.readouterr().err
    assert "'trainer.tptt.alpha_i=1': a value for trainer=tptt alone is known to tprnn's own sweeper" in told


@pytest.mark.parametrize("other", ["hydra/launcher=basic", "hydra/sweeper=basic"])
def test_so_it_does_with_other_launchers_and_sweepers(trained: list[RunSpec], other: str) -> None:
    assert cli.main(["train", "-m", TASK, "trainer=tptt,tptt_hx", "trainer.alpha_i=0.3", other]) == 0
    assert values(trained, "trainer.name", "trainer.alpha_i") == [("tptt", 0.3), ("tptt_hx", 0.3)]


@pytest.mark.parametrize(
    "value",
    ["1e-3", "0x10", "-2", "inf", "null", "true", "tanh", "'a b, c'", "'${seed}'", "${seed}", "[a,'b c',1]", "[]"],
)
def test_a_value_that_is_kept_for_the_points_stays_what_it_is(value: str) -> None:
    composer = compose.Composer(compose.config_loader())
    lines = [TASK, "trainer=bptt", f"+model.note={value}", f"++trainer.rate_factors={{W_hh:{value}}}"]
    assert at_points(lines) != lines
    (point,) = composer.expand(at_points(lines))
    assert repr(composer.config(point)) == repr(composer.config(lines))


# ---- a setting that is meant for one member


def test_each_member_has_its_own_values_and_no_others_double(trained: list[RunSpec]) -> None:
    line = "trainer=tptt,bptt trainer.tptt.alpha_i=1,10 trainer.bptt.alpha=0.5 seed=0,1"
    assert cli.main(["train", "-m", TASK, *line.split()]) == 0
    found = values(trained, "trainer.name", "trainer.alpha_i", "trainer.alpha", "seed")
    assert sorted(found, key=str) == sorted(
        [("tptt", rate, None, seed) for rate in (1.0, 10.0) for seed in (0, 1)]
        + [("bptt", None, 0.5, seed) for seed in (0, 1)],
        key=str,
    )


@pytest.mark.parametrize("first", ["trainer.tptt.alpha_i=7", "trainer.alpha_i=1,2"])
def test_a_value_for_one_member_takes_the_place_of_those_for_all(trained: list[RunSpec], first: str) -> None:
    lines = sorted(["trainer.tptt.alpha_i=7", "trainer.alpha_i=1,2"], key=lambda line: line != first)
    assert cli.main(["train", "-m", TASK, "trainer=tptt,tptt_hx", *lines, "seed=0,1"]) == 0
    found = values(trained, "trainer.name", "trainer.alpha_i", "seed")
    expected = [("tptt", 7.0), ("tptt_hx", 1.0), ("tptt_hx", 2.0)]
    assert sorted(found) == [(*one, seed) for one in expected for seed in (0, 1)]


def test_a_grid_leaves_out_what_a_member_was_given() -> None:
    lines = [TASK, "trainer=tptt,bptt", "grid=manchev2020", "trainer.tptt.alpha_i=1", "trainer.tptt.alpha_f=1"]
    by_trainer = [spec.config["trainer"]["name"] for spec in compose.points(lines)]
    assert (by_trainer.count("tptt"), by_trainer.count("bptt")) == (6, 6)


def test_free_mappings_of_one_member_take_new_keys() -> None:
    lines = [TASK, "trainer=tptt,bptt", "trainer.bptt.rate_factors={W_hh: 0.1}", "trainer.tptt.rate_factors.b_h=0.2"]
    assert [spec.config["trainer"]["rate_factors"] for spec in compose.points(lines)] == [{"b_h": 0.2}, {"W_hh": 0.1}]


def test_a_single_run_takes_a_value_for_its_member(trained: list[RunSpec], capsys: pytest.CaptureFixture[str]) -> None:
    line = [TASK, "trainer=tptt", "trainer.tptt.alpha_i=0.25", "trainer.tptt.rate_factors.W_hh=0.5"]
    assert cli.main(["train", *line]) == 0
    assert trained == [compose.compose(line)]
    assert values(trained, "trainer.alpha_i", "trainer.rate_factors.W_hh") == [(0.25, 0.5)]
    assert cli.main(["train", *line, "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["alpha_i"] == 0.25


@pytest.mark.parametrize("command", ["train -m", "depth", "search"])
def test_a_setting_that_a_member_lacks_is_one_line_of_every_command(
    trained: list[RunSpec], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([*command.split(), TASK, "trainer=tptt,bptt", "trainer.alpha_i=0.1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("unknown key 'trainer.alpha_i' of trainer=bptt", "for tptt alone: trainer.tptt.alpha_i=0.1"):
        assert part in error
    assert not trained


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "trainer=tptt,bptt trainer.alpha_i=0.1",
            "unknown key 'trainer.alpha_i' of trainer=bptt; nearest: trainer.alpha,",
        ),
        ("trainer=tptt,bptt trainer.alpha_i=0.1", "; for tptt alone: trainer.tptt.alpha_i=0.1"),
        ("trainer=tptt,bptt trainer.clip_norm=null", "of trainer=tptt* for bptt alone: trainer.bptt.clip_norm=null"),
        ("trainer=bptt,tptt trainer.alpha=1,2", "of trainer=tptt; nearest: * for bptt alone: trainer.bptt.alpha=1,2"),
        (
            "trainer=tptt,bptt trainer.tptt.alfa_i=1",
            "key 'trainer.alfa_i' of trainer=tptt; nearest: trainer.alpha_i",
        ),
        ("trainer=tptt,bptt trainer.tppt.alpha_i=1", "'trainer.tppt.alpha_i'* nearest: trainer.tptt.alpha_i"),
        ("trainer=tptt,bptt trainer.lra.K=1", "'trainer.lra.K': no point has trainer=lra; choices: tptt, bptt"),
        ("trainer=bptt optimizer=sgd,adam optimizer.beta1=0.5", "of optimizer=sgd;* optimizer.adam.beta1=0.5"),
        ("trainer=tptt,bptt trainer.bptt.alpha=-1", "trainer.alpha: expected a number above 0"),
    ],
)
def test_a_setting_that_a_member_lacks_is_told_with_what_to_write(line: str, says: str) -> None:
    refused([TASK, *line.split()], says)


def test_a_search_holds_the_rates_that_its_own_trainer_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spaces: dict[str, list[str]] = {}

    def note(found: Search, plan: Plan) -> list[Outcome]:
        spaces[found.spec.config["trainer"]["name"]] = list(found.space.dimensions)
        return []

    monkeypatch.setattr(search, "search_and_tell", note)
    line = "trainer=tptt,tptt_hx trainer.alpha_f=0.1 trainer.tptt.alpha_g=0.1 search.sampler=random"
    assert search.main([TASK, *line.split()]) == 0
    assert spaces == {"tptt": ["trainer.alpha_i"], "tptt_hx": ["trainer.alpha_i", "trainer.alpha_g"]}


# ---- points beside products

SETS = "[{trainer: bptt, trainer.alpha: 0.5}, {trainer: tptt, trainer.alpha_i: 3, trainer.freeze: [b_h]}]"
EXPECTED = [("bptt", 0.5, None, []), ("tptt", None, 3.0, ["b_h"])]


def rules(specs: Sequence[RunSpec]) -> list[tuple[Any, ...]]:
    return values(specs, "trainer.name", "trainer.alpha", "trainer.alpha_i", "trainer.freeze")


def search_path(folder: str) -> str:
    return f"hydra.searchpath=['file://{folder}']"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of YAMLs with a file of points."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "points").mkdir()
    (folder / "points" / "rates.yaml").write_text(f"# Mine.\nname: rates\npoints: {SETS}\n")
    return folder


@pytest.mark.parametrize("points", ["points=rates", f"points={SETS}"])
def test_points_are_multiplied_by_the_other_sweeps(trained: list[RunSpec], mine: Path, points: str) -> None:
    assert cli.main(["train", "-m", TASK, points, "seed=0,1", "--config-dir", str(mine)]) == 0
    assert rules(trained) == [one for one in EXPECTED for _ in range(2)]
    assert [spec.config["seed"] for spec in trained] == [0, 1, 0, 1]


def test_files_and_sets_of_points_stand_side_by_side(mine: Path) -> None:
    specs = compose.points([TASK, f"points=rates,{SETS},{{trainer: lra}}", search_path(str(mine))])
    assert rules(specs[:4]) == EXPECTED * 2
    assert [spec.config["trainer"]["name"] for spec in specs[4:]] == ["lra"]


def test_a_grid_leaves_out_what_a_point_gives() -> None:
    specs = compose.points([TASK, f"points={SETS}", "grid=manchev2020"])
    names = [spec.config["trainer"]["name"] for spec in specs]
    assert (names.count("bptt"), names.count("tptt")) == (1, 36)
    assert len({spec.signature for spec in specs}) == 37


def test_values_for_all_and_for_one_member_meet_the_members_of_points() -> None:
    specs = compose.points([TASK, f"points={SETS}", "trainer.rate_factors={W_hh: 0.1}", "trainer.tptt.alpha_f=9,8"])
    assert values(specs, "trainer.rate_factors.W_hh", "trainer.alpha_f") == [(0.1, None), (0.1, 9.0), (0.1, 8.0)]


def test_the_points_that_come_along_are_runs(trained: list[RunSpec]) -> None:
    assert cli.main(["train", "-m", "points=temporal_order", TASK, "task.T=20,50"]) == 0
    assert len({spec.signature for spec in trained}) == 12


@pytest.mark.parametrize(
    ("points", "others", "says"),
    [
        (
            "rates",
            "trainer.alpha=1",
            "point 1 of points=rates (trainer=bptt trainer.alpha=0.5): trainer.alpha is",
        ),
        ("rates", "trainer.tptt.alpha_i=1", "point 2 of points=rates*: trainer.alpha_i is given on the line too"),
        ("rates", "trainer=lra", "point 1*: trainer is given on the line too"),
        (
            "rates",
            "trainer.clip_norm=1",
            "point 2*'trainer.clip_norm' of trainer=tptt* trainer.bptt.clip_norm=1",
        ),
        ("rates", "task.T=20,3", "point 1 of points=rates*task.T*at least*got 3"),
        ("rats", "", "points: no 'rats'; nearest: rates"),
        (
            "[{trainer: bptt}, {trainer: bptt, trainer.alfa: 1}]",
            "",
            "point 2 (trainer=bptt trainer.alfa=1): unknown",
        ),
        ("[{trainer: bptt}, {trainer: tppt}]", "", "point 2 (trainer='tppt'): trainer: no 'tppt'; nearest: tptt"),
        ("[{trainer: bptt}, {task: adding, trainer.alpha: 1}]", "", "point 2*task is given on the line too"),
        (
            "[{trainer: bptt, trainer.alpha: -1}]",
            "",
            "point 1 (trainer=bptt trainer.alpha=-1): trainer.alpha: exp",
        ),
        ("[{trainer: bptt, trainer.bptt.alpha: 1}]", "", "point 1: trainer.bptt.alpha: write trainer.alpha"),
        ("[{trainer: bptt, points: rates}]", "", "point 1: expected a set of overrides"),
        ("[]", "trainer=bptt", "points=[]: expected a list of sets of overrides"),
        ("[3]", "trainer=bptt", "point 1: expected a set of overrides such as {trainer: tptt,*got 3"),
        ("3", "trainer=bptt", "point 1: expected a set of overrides"),
        ("[{trainer: bptt", "", "cannot read 'points=[{trainer: bptt'"),
    ],
)
def test_an_error_in_points_names_the_point(mine: Path, points: str, others: str, says: str) -> None:
    refused([TASK, f"points={points}", *others.split(), search_path(str(mine))], says)


def test_an_error_in_points_is_one_line(trained: list[RunSpec], mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "-m", TASK, "points=rates", "task.T=20,3", "--config-dir", str(mine)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tprnn train: error: point 1 of points=rates (trainer=bptt trainer.alpha=0.5): task.T")
    assert error.count("\n") == 1
    assert not trained


@pytest.mark.parametrize("points", ["points=temporal_order", f"points={SETS}"])
def test_points_without_m_ask_for_it(trained: list[RunSpec], capsys: pytest.CaptureFixture[str], points: str) -> None:
    assert cli.main(["train", TASK, points]) == 2
    assert "stands for many runs: add -m" in capsys.readouterr().err
    with pytest.raises(UserError, match="add -m"):
        compose.compose([TASK, points])


def test_files_without_points_are_refused(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "none.yaml").write_text("# Nothing.\nname: none\n")
    with pytest.raises(UserError, match="points=none: expected a list of sets of overrides"):
        compose.points([TASK, "trainer=bptt", "points=none", search_path(str(tmp_path))])


@pytest.mark.parametrize("group", ["points", "grid"])
def test_a_file_that_is_no_yaml_is_named_with_its_line(
    trained: list[RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str], group: str
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "torn.yaml").write_text("# Torn.\nname: torn\npoints:\n  - {trainer: tptt\nx: 1\n")
    assert cli.main(["train", "-m", TASK, "trainer=bptt", f"{group}=torn", "--config-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"cannot read {tmp_path / group / 'torn.yaml'}, line 5: expected ','" in error
    assert error.count("\n") == 1
    assert not trained
