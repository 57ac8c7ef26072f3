"""One way to name the folder of runs, `outputs=DIR`, for every command that reads or writes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tprnn import cli
from tprnn.arguments import take_outputs
from tprnn.errors import UserError

TINY = ["task=adding", "trainer=bptt", "task.T=10", "model.H=2", "train.max_iterations=1", "train.check_every=1"]
TINY += ["train.validation_size=10"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in its sub-folder `kept here/ü`."""
    folder = tmp_path_factory.mktemp("arguments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", *TINY, "outputs=kept here/ü", "quiet=true"]) == 0
    return folder


@pytest.fixture
def place(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs `kept here/ü`; the working folder is `whole`."""
    monkeypatch.chdir(whole)
    return whole / "kept here" / "ü"


@pytest.mark.parametrize(
    "line",
    [
        ["train", *TINY],
        ["depth", *TINY[:2], *TINY[3:], "depth.start=10", "depth.max=10"],
        ["search", *TINY, "search.trials=1", "search.sampler=random"],
        ["reproduce", "manchev2020/table1", "budget=smoke", "--dry-run"],
        ["evaluate", "adding-*", "--sequences", "10"],
        ["report"],
        ["report", "--where", "T=10"],
        ["report", "--paper", "manchev2020/table1"],
        ["plot"],
        ["plot", "adding-*", "--where", "T=10"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("at_the_end", [True, False])
def test_every_command_takes_its_folder_by_outputs(
    place: Path, line: list[str], at_the_end: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next((place / "runs").iterdir()).name
    name, *words = (run if word == "adding-*" and line[0] == "evaluate" else word for word in line)
    folder = "outputs=kept here/ü"
    assert cli.main([name, *words, folder] if at_the_end else [name, folder, *words]) == 0
    assert capsys.readouterr().err == "" or name in ("train", "depth", "search")
    assert [path.name for path in place.parent.parent.iterdir()] == ["kept here"]


@pytest.mark.parametrize("words", [["outputs=kept here/ü"], ["kept here/ü"], ["outputs='kept here/ü'"]], ids=str)
@pytest.mark.parametrize("where", [[], ["--where", "T=10", "trainer=bptt"]], ids=str)
def test_a_report_of_a_folder_shows_its_runs_wherever_the_folder_stands(
    place: Path, words: list[str], where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for argv in ([*words, *where], [*where, *words]):
        assert cli.main(["report", *argv]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "bptt" in shown[0]


def test_a_plot_takes_runs_after_its_conditions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(next((place / "runs").iterdir()))
    assert cli.main(["plot", "--where", "T=10", run]) == 0
    assert capsys.readouterr().out.startswith("1 run drawn")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["report", "/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["report", "outputs=/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["report", "--where", "T=10", "/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["report", "--paper", "manchev2020/table1", "/nonexistent"], "outputs: no folder '/nonexistent'"),
        (["report", "outputs="], "outputs: no folder ''"),
        (["report", "file"], "outputs: no folder 'file'; that is a file"),
        (["report", "task=adding"], "outputs: no folder 'task=adding'"),
        (["plot", "outputs=/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["plot", "--outputs", "/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["evaluate", "run", "outputs=/nonexistent"], "outputs: no folder '/nonexistent'; nothing is there"),
        (["evaluate", "run", "outputs=."], "run 'run': no run folder there; '.' has none"),
        (["evaluate", "run", "task.T=["], "'outputs' has none"),
        (["report", "outputs=a", "outputs=b"], "outputs: expected one folder of runs, got 'a' and 'b'"),
        (["report", "a", "outputs=b"], "outputs: expected one folder of runs, got 'a' and 'b'"),
        (["plot", "--outputs", "a", "outputs=b"], "outputs: expected one folder of runs, got 'a' and 'b'"),
        (["report", "--where", "a"], "--where: expected key=value"),
        (["report", "a", "--where", "T=10", "b"], "outputs: expected one folder of runs, got 'a' and 'b'"),
        (["list", "--no"], "unrecognized arguments: --no; see tprnn list --help"),
        (["evaluate"], "the following arguments are required: run"),
        (["evaluate", "x", "--sequences=x"], "--sequences: expected a whole number of at least 1, got 'x'"),
    ],
    ids=str,
)
def test_a_folder_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert cli.main(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_value_that_cannot_be_read_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(next((place / "runs").iterdir()))
    assert cli.main(["evaluate", run, "task.T=["]) == 2
    assert "'task.T=[': cannot read '['" in capsys.readouterr().err


def test_words_about_other_things_are_left() -> None:
    assert take_outputs(["a", "outputs=x=y", "--outputs"]) == ("x=y", ["a", "--outputs"])
    assert take_outputs(["outputs"]) == (None, ["outputs"])
    with pytest.raises(UserError, match="expected one folder"):
        take_outputs(["outputs=a", "outputs=a"])


def test_the_list_of_names_takes_a_folder_of_runs_as_all_commands_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "optimizers", "outputs=elsewhere"]) == 0
    assert "nesterov" in capsys.readouterr().out
