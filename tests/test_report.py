"""Tables of recorded runs: grouping, numbers, formats, damage, and pages that are written anew."""

from __future__ import annotations

import csv
import functools
import io
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_spec

import tprnn
from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.report.cli import report_main
from tprnn.report.frame import Row, group_rows, parse_where, read_rows, select, short_names
from tprnn.report.tables import iterations_to_solve, make_table, render, summarise
from tprnn.store import RunFolder, Store

Make = Callable[..., RunFolder]


@functools.cache
def base(trainer: str) -> RunSpec:
    return make_spec(trainer=trainer)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a run folder with a hand-made result: `make({"seed": 1}, trainer="tptt", iterations=300)`."""
    store = Store(tmp_path / "outputs")

    def write(changes: dict[str, Any] | None = None, *, trainer: str = "bptt", **result: Any) -> RunFolder:
        spec = base(trainer).replace(changes or {})
        folder = store.folder(spec)
        folder.open(spec)
        result = {"status": "solved", "iterations": 100, "accuracy": 1.0, "seconds": 1.0} | result
        shared = {"stopped_by": result["status"], "loss": 0.5, "best_accuracy": 1.0, "signature": spec.signature}
        if result["status"] is not None:
            folder.write_result(shared | result)
        return folder

    return write


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    return str(tmp_path / "outputs")


def table_of(outputs: str, *where: str) -> list[dict[str, str]]:
    """The CSV table as dicts."""
    rows, damaged = read_rows(outputs)
    assert damaged == []
    return list(csv.DictReader(io.StringIO(make_table(select(rows, parse_where(where)), "csv"))))


def markdown_cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


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


def test_settings_that_another_member_lacks_are_no_column(make: Make, outputs: str) -> None:
    make(trainer="bptt")
    make(trainer="tptt")
    (first, second) = table_of(outputs)
    assert list(first)[:2] == ["trainer", "seeds"]
    assert [first["trainer"], second["trainer"]] == ["bptt", "tptt"]


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
        "accuracy_median": statistics.median(accuracy),
        "accuracy_min": min(accuracy),
        "accuracy_max": max(accuracy),
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
    assert line["accuracy_median"] == str(statistics.median([0.5, 0.25]))
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
    assert line["iterations_median"] == line["accuracy_median"] == line["seconds_median"] == ""


def test_numbers_that_are_not_finite_leave_a_table(make: Make, outputs: str) -> None:
    make({"seed": 0}, status="diverged", accuracy=float("nan"), loss=float("nan"))
    make({"seed": 1}, status="diverged", accuracy=0.5, loss=float("inf"))
    assert [line["accuracy_median"] for line in table_of(outputs)] == ["0.5"]


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


# ---- formats


def test_markdown_says_what_is_the_same_in_all_runs(make: Make, outputs: str) -> None:
    make({"seed": 0, "task.T": 20})
    make({"seed": 1, "task.T": 30})
    first = make_table(read_rows(outputs)[0]).splitlines()[0]
    assert first.startswith("2 runs in 2 groups; all with task = temporal_order, model = srn")
    assert "T =" not in first


def test_csv_holds_every_digit(make: Make, outputs: str) -> None:
    make({"trainer.alpha": 0.1 + 0.2}, accuracy=1 / 3, seconds=2 / 3)
    make({"trainer.alpha": 1e-9}, accuracy=1 / 3, seconds=2 / 3)
    table = table_of(outputs)
    assert [float(line["alpha"]) for line in table] == [1e-9, 0.1 + 0.2]
    assert [float(line["accuracy_max"]) for line in table] == [1 / 3, 1 / 3]
    assert [float(line["seconds_median"]) for line in table] == [2 / 3, 2 / 3]


HARD = ["a_b", "50 %", "x & y", "#1", "{z}", "$m$", "[W_hh]", "~", "^", "\\", ">3 [1–>5]", "|", "<!-- -->"]


def test_latex_cells_hold_no_bare_special_characters() -> None:
    text = render(["name", "n"], [[cell, 1] for cell in HARD], "latex", [False, True])
    for line in text.splitlines()[4:-2]:
        bare = line.replace("\\\\", "").replace("$<$", "").replace("$>$", "")
        for escaped in ("\\_", "\\%", "\\&", "\\#", "\\$", "\\{", "\\}"):
            bare = bare.replace(escaped, "")
        assert bare.count("&") == (0 if line == "\\midrule" else 1)
        assert not set(bare) & set("_%#$~^<>–")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs(make: Make, outputs: str, tmp_path: Path) -> None:
    make({"seed": 0, "trainer.freeze": ["W_hh", "b_h"]}, status="not_solved")
    make({"seed": 1, "trainer.freeze": ["W_hh", "b_h"]})
    make({"seed": 2, "task.T": 30}, status="interrupted")
    tables = [make_table(read_rows(outputs)[0], "latex"), render(HARD, [HARD, HARD], "latex")]
    tables.append(render(["symbols"], [["α γ ε λ ρ Ω ≥ 1 ≤ 2 × 3 ± 4 …"]], "latex"))
    text = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\n\\end{document}\n"
    (tmp_path / "page.tex").write_text(text % "\n\n".join(tables))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_bar_in_a_cell_does_not_split_a_markdown_row() -> None:
    assert render(["a"], [["x|y"]], "md").splitlines()[-1].count(" \\| ") == 0
    assert "x\\|y" in render(["a"], [["x|y"]], "md")


@pytest.mark.parametrize("fmt", ["html", "MD", ""])
def test_an_unknown_format_is_one_line(outputs: str, fmt: str) -> None:
    with pytest.raises(UserError, match=f"--format: no format '{fmt}'"):
        report_main([outputs, "--format", fmt])


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


@pytest.mark.parametrize("there", [False, True])
def test_no_runs_yet_is_a_kind_line(
    tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    if there:
        (tmp_path / "outputs" / "runs").mkdir(parents=True)
    assert report_main([outputs]) == 0
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


# ---- pages


def test_into_writes_every_block_anew_from_its_own_arguments(
    make: Make, outputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make({"task.T": 20}, iterations=700)
    make({"task.T": 30}, iterations=900)
    page = tmp_path / "page.md"
    example = "```\n<!-- tprnn report example -->\n<!-- end -->\n```\n"
    page.write_text(
        f"# Title\n\n<!-- tprnn report {outputs} --where T=20 -->\nold\n<!-- end -->\nbetween\n{example}"
        f"<!-- tprnn report {outputs} --where T=30 --format csv -->\n<!-- end -->\nafter\n"
    )
    assert report_main(["--into", str(page)]) == 0
    text = page.read_text()
    rows, _ = read_rows(outputs)
    first, second = (
        make_table([row for row in rows if row["task.T"] == T], fmt) for T, fmt in ((20, "md"), (30, "csv"))
    )
    assert text == (
        f"# Title\n\n<!-- tprnn report {outputs} --where T=20 -->\n\n{first}\n\n<!-- end -->\nbetween\n{example}"
        f"<!-- tprnn report {outputs} --where T=30 --format csv -->\n\n```\n{second}\n```\n\n<!-- end -->\nafter\n"
    )
    assert report_main(["--into", str(page)]) == 0
    assert page.read_text() == text
    assert "unchanged" in capsys.readouterr().out


def test_into_with_arguments_writes_that_block_only(make: Make, outputs: str, tmp_path: Path) -> None:
    make({"task.T": 20})
    page = tmp_path / "page.md"
    page.write_text("<!-- tprnn report elsewhere -->\nkept\n<!-- end -->\n")
    for _ in range(2):  # the second time the block is there
        assert report_main([outputs, "--where", "T=20", f"--into={page}"]) == 0
        table = make_table(read_rows(outputs)[0])
        assert page.read_text() == (
            "<!-- tprnn report elsewhere -->\nkept\n<!-- end -->\n"
            f"\n<!-- tprnn report {outputs} --where T=20 -->\n\n{table}\n\n<!-- end -->\n"
        )


def test_into_makes_a_page_that_is_not_there(make: Make, outputs: str, tmp_path: Path) -> None:
    make()
    assert report_main([outputs, "--into", str(tmp_path / "new.md")]) == 0
    assert (tmp_path / "new.md").read_text().startswith(f"<!-- tprnn report {outputs} -->\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n<!-- tprnn report x -->\n", "line 2: this block has no line"),
        ("<!-- tprnn report x -->\n<!-- tprnn report y -->\n<!-- end -->\n", "line 1: this block has no line"),
        ("\n<!-- tprnn report --format tex -->\n<!-- end -->\n", "line 2: --format"),
        ("<!-- tprnn report 'x -->\n<!-- end -->\n", "line 1: "),
        ("<!-- tprnn report --into y.md -->\n<!-- end -->\n", "line 1: --into"),
        ("no block\n", "no line '<!-- tprnn report"),
    ],
)
def test_a_page_that_cannot_be_written_anew_is_named_and_left(tmp_path: Path, text: str, told: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=f"page.md.*{told}"):
        report_main(["--into", str(page)])
    assert page.read_text() == text


def test_a_missing_page_without_arguments_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        report_main(["--into", str(tmp_path / "none.md")])


def test_damage_is_told_once_though_two_blocks_meet_it(
    make: Make, outputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (make().path / "result.json").write_text("")
    page = tmp_path / "page.md"
    page.write_text(f"<!-- tprnn report {outputs} -->\n<!-- end -->\n" * 2)
    assert report_main(["--into", str(page)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---- papers


@pytest.mark.parametrize("fmt", ["md", "latex", "csv"])
def test_a_paper_table_is_handed_on(outputs: str, fmt: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tprnn.report.paper import paper_report

    assert report_main([outputs, "--paper", "manchev2020/table1", "--format", fmt]) == 0
    assert capsys.readouterr().out.rstrip("\n") == paper_report(outputs, "manchev2020/table1", fmt).rstrip("\n")


def test_a_paper_table_chooses_its_runs_itself(outputs: str) -> None:
    with pytest.raises(UserError, match="--where: cannot be combined with --paper"):
        report_main([outputs, "--paper", "manchev2020/table1", "--where", "T=10"])


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
        {"status": "solved", "iterations": n, "accuracy": 1.0, "seconds": None, "seed": n} for n in (1, 3)
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
