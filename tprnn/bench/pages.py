"""Pages of docs/ whose tables are written by commands."""

from __future__ import annotations


def replaced(page: str, name: str, text: str) -> str:
    """`page` with what stands between its lines `<!-- NAME -->` and the next `<!-- end -->` replaced by `text`.

    Raises ValueError where the page has no such lines.
    """
    lines = page.splitlines()
    first = lines.index(f"<!-- {name} -->")
    last = lines.index("<!-- end -->", first)
    return "\n".join([*lines[: first + 1], "", text, "", *lines[last:]]) + "\n"
