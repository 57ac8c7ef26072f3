"""docs/notebook.md: every block runs as it stands, in order, and prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from notebook_cells import Session

PAGE = Path(__file__).parent.parent / "docs" / "notebook.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str | None, int]]:
    """Each block of Python, what is shown as its output (None: nothing is), and the line where it begins."""
    found: list[tuple[str, str | None, int]] = []
    for match in BLOCK.finditer(text):
        kind, content = match.groups()
        if kind == "python":
            found.append((content, None, text.count("\n", 0, match.start()) + 1))
        else:
            assert kind == "text", f"a block of {kind or 'no language'}"
            code, shown, line = found[-1]
            assert shown is None, f"line {line}: two outputs"
            found[-1] = code, content, line
    return found


def test_the_page_runs_and_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], session: Session
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TPRNN_WORKERS", "1")  # the page's numbers do not depend on it; processes take seconds to begin
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = PAGE.read_text()
    for code, shown, line in blocks(text):
        session.run(code, f"notebook.md, line {line},")
        printed = capsys.readouterr().out
        if shown is not None:
            assert "".join(kept(printed)) == shown, f"line {line}"
    assert (tmp_path / "loss.png").stat().st_size > 1000


def kept(printed: str) -> list[str]:
    """What a block prints by itself: without the last line of a call that trains."""
    return [line for line in printed.splitlines(keepends=True) if not re.search(r"[(;] ?tprnn plot ", line)]


def test_a_block_is_seen_with_its_output() -> None:
    text = "a\n```python\nx\n```\n\n```text\n1\n```\n\n```python\ny\n```\n"
    assert blocks(text) == [("x\n", "1\n", 2), ("y\n", None, 10)]
