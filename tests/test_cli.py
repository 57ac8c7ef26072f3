"""The command line as a whole: what it imports, its help, lists, completion and exit codes."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import tprnn
from tprnn import cli
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError

CONF = Path(__file__).parent.parent / "conf"


def run_command(monkeypatch: pytest.MonkeyPatch, command: Callable[[Sequence[str]], int], *argv: str) -> int:
    """`tprnn NAME ...` with `command` in the place of the sub-command NAME; the exit code."""
    monkeypatch.setitem(sys.modules, "stand_in", types.ModuleType("stand_in"))
    monkeypatch.setattr(sys.modules["stand_in"], "main", command, raising=False)
    monkeypatch.setitem(cli.COMMANDS, argv[0], ("stand_in", "main", ""))
    return cli.main(argv)


def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """The completions of a command line that ends at the cursor."""
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    "argv", [["--help"], ["report", "--help"], ["plot", "--help"], ["data"], ["list"], ["--version"]], ids=str
)
def test_light_commands_import_neither_torch_nor_pandas_nor_hydra(argv: list[str]) -> None:
    code = (
        "import sys\nfrom tprnn.cli import main\n"
        f"try:\n    code = main({argv!r})\nexcept SystemExit as end:\n    code = end.code\n"
        "assert not code, code\n"
        "heavy = {'torch', 'pandas', 'hydra', 'omegaconf', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("train", "depth", "search", "evaluate", "reproduce", "report", "plot", "data", "list"):
        assert f"\n  {name} " in shown


def test_no_command_shows_the_usage_and_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: tprnn")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tprnn {tprnn.__version__}\n"


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tprnn", "trian"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tprnn: error: unknown command 'trian'; nearest: train\n"


def test_an_override_in_the_place_of_the_command_points_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["task=adding"]) == 2
    assert "nearest: train" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "depth", "search", "reproduce"])
def test_force_and_quiet_anywhere_become_overrides(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    got: list[str] = []
    run_command(monkeypatch, lambda argv: got.extend(argv) or 0, name, "--force", "task=adding", "--quiet", "seed=1")
    assert got == ["force=true", "task=adding", "quiet=true", "seed=1"]


def test_other_commands_get_their_arguments_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[str] = []
    run_command(monkeypatch, lambda argv: got.extend(argv) or 0, "report", "--quiet")
    assert got == ["--quiet"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("bad\n  thing"), 2),
        (KeyboardInterrupt(), 130),
        (Interrupted(signal.SIGINT), 130),
        (Interrupted(signal.SIGTERM), 143),
        (None, 1),
    ],
    ids=repr,
)
def test_what_ends_a_command_becomes_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException | None, code: int
) -> None:
    def command(argv: Sequence[str]) -> int:
        if error is not None:
            raise error
        return 1

    monkeypatch.delenv("TPRNN_DEBUG", raising=False)
    assert run_command(monkeypatch, command, "evaluate") == code
    assert capsys.readouterr().err == ("tprnn evaluate: error: bad thing\n" if code == 2 else "")


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: Sequence[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(monkeypatch, command, "evaluate")


def test_debugging_shows_the_traceback_of_bad_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(argv: Sequence[str]) -> int:
        raise UserError("bad")

    monkeypatch.setenv("TPRNN_DEBUG", "1")
    with pytest.raises(UserError):
        run_command(monkeypatch, command, "evaluate")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("argv", [["report", "--paper", "manchev2025/table5"], ["list"], ["depth", "--help"]], ids=str)
def test_what_a_stream_cannot_show_is_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: list[str], encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = {}
    for name in (encoding, "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=name)
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(argv) == 0
        stream.flush()
        shown[name] = stream.buffer.getvalue()
    assert shown[encoding] == shown["utf-8"].decode().encode(encoding, errors="backslashreplace")
    assert len(shown["utf-8"]) > 500


def test_the_real_command_shows_a_table_on_an_ascii_stream(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tprnn", "report", "--paper", "manchev2020/table1"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03b1" in done.stdout
    assert done.stdout.isascii()


def test_control_characters_are_escaped_in_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "\x1b[31m\udcff\n\x00"]) == 2
    assert "unknown kind '\\x1b[31m\\udcff \\x00'" in capsys.readouterr().err


def test_list_shows_every_member_with_the_first_line_of_its_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for group in ("task", "model", "trainer", "optimizer", "probe", "grid", "paper/*"):
        for path in CONF.glob(f"{group}/*.yaml"):
            name = path.relative_to(CONF / group.partition("/")[0]).with_suffix("").as_posix()
            comment = path.read_text().splitlines()[0].removeprefix("# ")
            assert any(line.split(maxsplit=1) == [name, comment] for line in shown.splitlines()), path


def test_every_yaml_begins_with_a_sentence() -> None:
    for path in CONF.rglob("*.yaml"):
        assert path.read_text().startswith("# "), path
        assert path.read_text().splitlines()[0].endswith("."), path


def test_list_shows_the_kinds_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "budgets", "grids"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line and line[0] != " "] == ["budgets", "grids"]
    assert {"smoke", "laptop", "paper"} <= {line.split()[0] for line in shown.splitlines() if line}


def test_list_refuses_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "trainer"]) == 2
    assert capsys.readouterr().err == "tprnn list: error: unknown kind 'trainer'; nearest: trainers\n"


@pytest.mark.parametrize(
    ("line", "present"),
    [
        ("tprnn", {"train", "depth", "search", "evaluate", "reproduce", "report", "plot", "data", "list"}),
        ("tprnn re", {"reproduce", "report"}),
        ("tprnn train ", {"task=", "trainer=", "seed=", "train."}),
        ("tprnn train trainer=", {"trainer=bptt", "trainer=tptt", "trainer=tptt_hx"}),
        (
            "tprnn train -m task=adding trainer=tptt trainer.al",
            {"trainer.alpha_i=", "trainer.alpha_f=", "trainer.alpha_g="},
        ),
        ("tprnn train train.max_i", {"train.max_iterations="}),
        ("tprnn train task=adding --qu", {"--quiet"}),
        ("tprnn depth grid=", {"grid=none", "grid=wide", "grid=manchev2020"}),
        ("tprnn search trainer=tptt_m", {"trainer=tptt_many"}),
        ("tprnn reproduce manchev2020/table1 bu", {"budget=smoke", "budget=laptop", "budget=paper"}),
        ("tprnn reproduce manch", {"manchev2020/table1"}),
        ("tprnn reproduce manchev2025/fi", {"manchev2025/fig2", "manchev2025/fig5"}),
        ("tprnn plot manch", {"manchev2025/fig2", "manchev2025/fig5"}),
        ("tprnn plot manchev2025/fig2 bu", {"budget=smoke", "budget=laptop", "budget=paper"}),
        ("tprnn list tr", {"trainers"}),
        ("tprnn nothing x", set()),
    ],
)
def test_completion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, present: set[str]
) -> None:
    found = complete(monkeypatch, capsys, line)
    assert present <= set(found)
    word = "" if line.endswith(" ") or line == "tprnn" else line.split()[-1]
    assert all(choice.startswith(word) for choice in found)
    assert bool(found) == bool(present)


def test_completion_refuses_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-sc", "install=csh"]) == 2
    assert capsys.readouterr().err.startswith("tprnn: error: -sc: expected install=SHELL")


def test_bash_completes_with_the_installed_script() -> None:
    bin_folder = Path(sys.executable).parent
    if shutil.which("bash") is None or not (bin_folder / "tprnn").exists():
        pytest.skip("needs bash and an installed tprnn")
    script = (
        'eval "$(tprnn -sc install=bash)"\n'
        'COMP_LINE="tprnn train trainer=tptt_h"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($COMP_LINE); COMP_CWORD=2\n'
        'complete -p tprnn >/dev/null && hydra_bash_completion && echo "${COMPREPLY[@]}"\n'
    )
    env = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=env)
    assert (done.stdout, done.returncode) == ("trainer=tptt_hx\n", 0), done.stderr
