"""Tables as Markdown, LaTeX and CSV, and pages in which they are written anew."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Make
from table_cells import table_of

from tprnn.errors import UserError
from tprnn.report.cli import report_main
from tprnn.report.rows.frame import read_rows
from tprnn.report.tables.plain import make_table, render

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
    assert [float(line["score_max"]) for line in table] == [1 / 3, 1 / 3]
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
    from tprnn.report.tables.paper import paper_report

    Path(outputs).mkdir()
    assert report_main([outputs, "--paper", "manchev2020/table1", "--format", fmt]) == 0
    assert capsys.readouterr().out.rstrip("\n") == paper_report(outputs, "manchev2020/table1", fmt).rstrip("\n")


def test_a_paper_table_chooses_its_runs_itself(outputs: str) -> None:
    with pytest.raises(UserError, match="--where: cannot be combined with --paper"):
        report_main([outputs, "--paper", "manchev2020/table1", "--where", "T=10"])
