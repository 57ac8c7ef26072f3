"""Documents are wrapped, so that a change of one word is one line of a diff."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_wrapped_at_120_characters(page: Path) -> None:
    """But for tables, code and pictures, which cannot be."""
    code, long = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        code ^= line.lstrip().startswith("```")
        if len(line) > 120 and not code and not line.lstrip().startswith(("|", "![", "<!--")):
            long.append(number)
    assert long == []
