"""Pages of docs/ whose tables are written by commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tprnn.files import write_atomically


def replaced(page: str, name: str, text: str) -> str:
    """`page` with what stands between its lines `<!-- NAME -->` and the next `<!-- end -->` replaced by `text`.

    Raises ValueError where the page has no such lines.
    """
    lines = page.splitlines()
    first = lines.index(f"<!-- {name} -->")
    last = lines.index("<!-- end -->", first)
    return "\n".join([*lines[: first + 1], "", text, "", *lines[last:]]) + "\n"


def write_blocks(path: Path, blocks: Mapping[str, str]) -> None:
    """Replace blocks of a page by name. Raises ValueError where the page lacks one; it is then left as it is."""
    page = path.read_text(encoding="utf-8")
    for name, text in blocks.items():
        page = replaced(page, name, text)
    write_atomically(path, page.encode())
