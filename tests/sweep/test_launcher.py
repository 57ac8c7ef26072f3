"""`tprnn train` under its launchers: what is trained, what is written, which exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tprnn import cli, compose, train_command
from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.sweep.executors.base import Executor
from tprnn.sweep.returned import RunFailed, job_value

GRID = ["-m", "task=adding", "trainer=tptt"]
TINY = ["task=adding", "model.H=4", "train.max_iterations=2", "train.check_every=1", "train.validation_size=20"]


class FakeRuns:
    """Stands for `run_all`: notes what it was asked for, writes nothing."""

    def __init__(self) -> None:
        self.calls: list[list[RunSpec]] = []
        self.failing_seed: int | None = None
        self.error: BaseException | None = None

    def __call__(self, specs: Sequence[RunSpec], executor: Executor | None = None) -> list[Outcome]:
        self.calls.append(list(specs))
        if self.error is not None:
            raise self.error
        failed = [spec.config["seed"] == self.failing_seed for spec in specs]
        return [
            Outcome(spec, "failed" if bad else "solved", {"accuracy": 1.0}, error="broken" if bad else None)
            for spec, bad in zip(specs, failed, strict=True)
        ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuns:
    """No training; the working folder is empty."""
    runs = FakeRuns()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tprnn.sweep.run.run_all", runs)
    return runs


def test_the_plugins_are_found_by_hydra_whatever_the_install() -> None:
    train_command.register_plugins()
    loader = compose.config_loader()
    assert "stack" in loader.get_group_options("hydra/launcher")
    assert "grid" in loader.get_group_options("hydra/sweeper")


def test_a_single_run_is_one_call_with_one_run(fake: FakeRuns, tmp_path: Path) -> None:
    assert cli.main(["train", "task=adding", "trainer=bptt", "seed=7"]) == 0
    assert fake.calls == [[compose.compose(["task=adding", "trainer=bptt", "seed=7"])]]
    assert list(tmp_path.iterdir()) == []


def test_the_stack_launcher_trains_a_whole_grid_by_one_call(fake: FakeRuns, tmp_path: Path) -> None:
    assert cli.main(["train", *GRID, "grid=manchev2020"]) == 0
    assert fake.calls == [compose.points(["task=adding", "trainer=tptt", "grid=manchev2020"])]
    assert len(fake.calls[0]) == 216
    assert list(tmp_path.iterdir()) == []


def test_the_grid_of_a_line_with_two_trainers_has_the_axes_of_each(fake: FakeRuns) -> None:
    assert cli.main(["train", "-m", "task=adding", "trainer=bptt,tptt", "grid=wide"]) == 0
    assert [len(call) for call in fake.calls] == [6 + 45]


def test_without_axes_a_sweep_is_one_run(fake: FakeRuns) -> None:
    assert cli.main(["train", *GRID]) == 0
    assert [len(call) for call in fake.calls] == [1]


def test_the_basic_launcher_gets_the_same_points_one_by_one(fake: FakeRuns, tmp_path: Path) -> None:
    line = ["task=adding", "trainer=tptt", "seed=0,1", "trainer.rate_factors={W_hh: 0.1}", "trainer.freeze=[b_h]"]
    assert cli.main(["train", "-m", *line, "hydra/launcher=basic"]) == 0
    assert fake.calls == [[spec] for spec in compose.points(line)]
    assert list(tmp_path.iterdir()) == []


def test_flags_may_stand_between_overrides(fake: FakeRuns) -> None:
    assert cli.main(["train", "task=adding", "--quiet", "-m", "trainer=tptt", "--force", "seed=0,1"]) == 0
    assert [(s.config["seed"], s.execution["quiet"], s.execution["force"]) for s in fake.calls[0]] == [
        (0, True, True),
        (1, True, True),
    ]


def test_a_config_dir_adds_members(fake: FakeRuns, tmp_path: Path) -> None:
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "long.yaml").write_text("# Long.\nname: long\nrule: adding\nT: 90\nreading: paper\n")
    for options in ([], ["-m"]):
        assert cli.main(["train", "task=long", "trainer=tptt", "--config-dir", "mine", *options]) == 0
    assert [call[0].config["task"]["T"] for call in fake.calls] == [90, 90]


def test_batches_are_launched_one_after_another(fake: FakeRuns) -> None:
    assert cli.main(["train", *GRID, "seed=range(5)", "hydra.sweeper.max_batch_size=2"]) == 0
    assert [[spec.config["seed"] for spec in call] for call in fake.calls] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("launcher", ["stack", "basic"])
def test_one_failed_run_makes_the_exit_code_1_and_stops_no_other(fake: FakeRuns, launcher: str) -> None:
    fake.failing_seed = 0
    assert cli.main(["train", *GRID, "seed=0,1,2", f"hydra/launcher={launcher}"]) == 1
    assert [spec.config["seed"] for call in fake.calls for spec in call] == [0, 1, 2]


def test_a_failed_single_run_makes_the_exit_code_1(fake: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    fake.failing_seed = 0
    assert cli.main(["train", "task=adding", "trainer=tptt"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [["task=adding", "trainer=tptt"], GRID, [*GRID, "hydra/launcher=basic"]], ids=str)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_gives_the_exit_code_of_its_signal(
    fake: FakeRuns, options: list[str], signum: signal.Signals, code: int
) -> None:
    fake.error = Interrupted(signum)
    assert cli.main(["train", *options]) == code


@pytest.mark.parametrize("options", [["task=adding", "trainer=tptt"], GRID, [*GRID, "hydra/launcher=basic"]], ids=str)
def test_bad_input_found_when_training_starts_is_one_line(
    fake: FakeRuns, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    fake.error = UserError("outputs: not writable")
    assert cli.main(["train", *options]) == 2
    assert capsys.readouterr().err == "tprnn train: error: outputs: not writable\n"


@pytest.mark.parametrize("options", [["task=adding", "trainer=tptt"], GRID, [*GRID, "hydra/launcher=basic"]], ids=str)
def test_a_bug_of_ours_is_raised_as_it_is(fake: FakeRuns, options: list[str]) -> None:
    fake.error = ValueError("ours")
    with pytest.raises(ValueError, match="ours"):
        cli.main(["train", *options])


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--cfg", "job", "-p", "task"], ["--help"]], ids=str)
def test_hydras_own_flags_print_and_train_nothing(
    fake: FakeRuns, capsys: pytest.CaptureFixture[str], flags: list[str], tmp_path: Path
) -> None:
    try:
        code = cli.main(["train", "task=adding", "trainer=tptt", *flags])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 0
    assert len(capsys.readouterr().out) > 40
    assert fake.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "shown"), [("--info=searchpath", "tprnn.conf"), ("--hydra-help", "hydra/launcher")])
def test_hydras_help_prints_and_trains_nothing(tmp_path: Path, flag: str, shown: str) -> None:
    # in a process of its own, as it sets up logging
    command = [sys.executable, "-m", "tprnn", "train", "task=adding", "trainer=tptt", flag]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_task_and_names_all_members(fake: FakeRuns, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--help"])
    assert not end.value.code
    shown = capsys.readouterr().out
    for name in ("temporal_order_3bit", "tptt_hx", "nesterov", "manchev2020", "max_iterations"):
        assert name in shown


def test_a_foreign_sweeper_learns_of_failed_runs_too(fake: FakeRuns) -> None:
    fake.failing_seed = 1
    assert cli.main(["train", *GRID, "seed=0,1", "hydra/sweeper=basic"]) == 1


def test_the_line_of_the_shell_is_left_as_it_was(fake: FakeRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["elsewhere", "x"])
    before = signal.getsignal(signal.SIGTERM)
    cli.main(["train", *GRID])
    assert sys.argv == ["elsewhere", "x"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("launcher", ["stack", "basic", "joblib"])
def test_real_runs_write_into_outputs_alone_and_one_that_is_too_large_is_counted(launcher: str, tmp_path: Path) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    # the second run asks for more memory than there is
    command = [*TINY, "trainer=tptt", "train.batch_size=5,10000000000000", f"hydra/launcher={launcher}"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tprnn",
            "train",
            "-m",
            *command,
            *(["hydra.launcher.n_jobs=2"] * (launcher == "joblib")),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (folder / "result.json").exists()
    assert done.stderr.count("needs at least 8.4 PiB of memory") == 1


def test_an_outcome_becomes_what_an_optimising_sweeper_reads() -> None:
    spec = compose.compose(["task=adding", "trainer=tptt"])
    assert job_value(Outcome(spec, "not_solved", {"accuracy": 0.25})) == 0.25
    with pytest.raises(RunFailed, match=f"{spec.folder_name}: broken"):
        job_value(Outcome(spec, "failed", {}, error="broken"))
