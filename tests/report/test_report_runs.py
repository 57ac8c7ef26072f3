"""Which runs a report takes: by condition, past damage, as a table in Python, and without heavy imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Make

import tprnn
from tprnn.errors import UserError
from tprnn.report.cli import report_main
from tprnn.report.rows.frame import Row, group_rows, parse_where, read_rows, select
from tprnn.report.tables.plain import summarise

# ---- choosing


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (["T=20"], 2),
        (["task.T=20,30"], 3),
        (["trainer=tptt"], 1),
        (["trainer=tptt,bptt", "T=20"], 2),
        (["trainer.alpha=1e-3"], 2),
        (["alpha=0.001"], 2),
        (["freeze=[W_hh,b_h]"], 1),
        (["freeze=[]"], 2),
        (["status=not_solved"], 1),
        (["clip_norm=null"], 2),
        (["task=adding"], 0),
    ],
)
def test_where_chooses_by_config_and_status(make: Make, outputs: str, where: list[str], count: int) -> None:
    make({"task.T": 20})
    make({"task.T": 30, "trainer.freeze": ["W_hh", "b_h"]}, status="not_solved")
    make({"task.T": 20}, trainer="tptt")
    assert len(select(read_rows(outputs)[0], parse_where(where))) == count


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("alpa=1", "nearest: .*alpha"),
        ("reading=paper", "task.reading or trainer.reading"),
        ("T", "expected key=value"),
        ("T=", "expected key=value"),
        ("T=[1", "expected key=value"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_one_line(make: Make, outputs: str, condition: str, told: str) -> None:
    make(trainer="tptt")
    with pytest.raises(UserError, match=f"--where: .*{told}"):
        report_main([outputs, "--where", condition])


def test_conditions_that_fit_no_run_say_so(make: Make, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    assert report_main([outputs, "--where", "T=77"]) == 0
    assert capsys.readouterr().out == f"None of the 1 runs in {outputs} has T=77.\n"


@pytest.mark.parametrize("words", [[], ["outputs"], ["outputs=outputs"]], ids=str)
def test_no_runs_yet_is_a_kind_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if words:  # the default folder need not be there
        (tmp_path / "outputs").mkdir()
    assert report_main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("No runs in ")
    assert "tprnn train" in out
    assert out.count("\n") == 1


# ---- damage


def test_damaged_runs_are_named_and_all_others_shown(
    make: Make, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make({"seed": seed}) for seed in range(5)]
    (folders[0].path / "result.json").write_text('{"status": "solved", "iterations"')
    (folders[1].path / "config.yaml").write_bytes(b"\x00" * 50)
    shutil.copy(folders[3].path / "result.json", folders[2].path / "result.json")
    before = {path: path.read_bytes() for path in Path(outputs).rglob("*") if path.is_file()}
    assert report_main([outputs]) == 2
    out, err = capsys.readouterr()
    assert "| 2/2 |" in " ".join(out.split())
    assert len(err.splitlines()) == 3
    for folder, name in zip(folders, ("result.json", "config.yaml", "result.json"), strict=False):
        assert sum(str(folder.path / name) in line for line in err.splitlines()) == 1
    assert {path: path.read_bytes() for path in Path(outputs).rglob("*") if path.is_file()} == before


def test_nothing_but_damage_is_said(make: Make, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    (make().path / "result.json").write_text("")
    assert report_main([outputs]) == 2
    out, err = capsys.readouterr()
    assert "can be read" in out
    assert "result.json" in err


# ---- from Python


def test_runs_is_a_table_with_dotted_columns(make: Make, outputs: str) -> None:
    make({"seed": 0, "trainer.freeze": ["W_hh"]}, iterations=300, accuracy=0.5)
    make({"seed": 1}, trainer="tptt", status="failed", iterations=None, accuracy=None)
    frame = tprnn.runs(outputs)
    assert sorted(frame["status"]) == ["failed", "solved"]
    assert set(frame.columns) >= {"run", "path", "signature", "family", "stopped_by", "loss", "task.T", "trainer.alpha"}
    solved = frame[frame["status"] == "solved"].iloc[0]
    assert (solved["iterations"], solved["accuracy"], solved["trainer.freeze"]) == (300, 0.5, ("W_hh",))
    assert frame["iterations"].isna().sum() == 1
    assert len(frame.groupby(["trainer.name", "trainer.freeze"])) == 2


def test_runs_of_an_empty_folder_have_the_same_columns(outputs: str) -> None:
    frame = tprnn.runs(outputs)
    assert len(frame) == 0
    assert {"run", "status", "iterations"} <= set(frame.columns)


def test_runs_warns_of_damage_and_goes_on(make: Make, outputs: str) -> None:
    make({"seed": 0})
    (make({"seed": 1}).path / "result.json").write_text("")
    with pytest.warns(UserWarning, match="result.json: damaged"):
        assert len(tprnn.runs(outputs)) == 1


def test_summaries_take_rows_of_any_origin() -> None:
    rows: list[Row] = [
        {"status": "solved", "iterations": n, "seconds": None, "seed": n} | {"score": "accuracy", "last_score": 1.0}
        for n in (1, 3)
    ]
    (group,) = group_rows(rows)
    assert (summarise(group).seeds, summarise(group).seconds) == (2, None)


# ---- start-up

HYGIENE = """
import sys
sys.argv = ["tprnn", *sys.argv[1:]]
{code}
heavy = sorted({{"torch", "pandas", "hydra", "omegaconf", "matplotlib"}} & set(sys.modules))
assert not heavy, heavy
"""
HELP = """
from tprnn.report.cli import report_main, plot_main
for main in (report_main, plot_main):
    try:
        main(["--help"])
    except SystemExit as error:
        assert error.code == 0
"""


@pytest.mark.parametrize(
    "code",
    [
        "import tprnn\nassert tprnn.__version__ and tprnn.runs and tprnn.load",
        HELP,
        "from tprnn.report.cli import report_main\nassert report_main(sys.argv[1:]) == 0",
    ],
    ids=["import", "help", "table"],
)
def test_nothing_heavy_is_imported(make: Make, outputs: str, code: str) -> None:
    make()
    command = [sys.executable, "-c", HYGIENE.format(code=code), outputs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
