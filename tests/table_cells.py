"""What the tests of reports share: the cells of a printed table."""

from __future__ import annotations

import csv
import io

from tprnn.report.rows.frame import parse_where, read_rows
from tprnn.report.tables.plain import make_table
from tprnn.report.tables.views import choose


def table_of(outputs: str, *where: str) -> list[dict[str, str]]:
    """The CSV table as dicts."""
    rows, damaged = read_rows(outputs)
    chosen, more = choose(rows, parse_where(where))
    assert [*damaged, *more] == []
    return list(csv.DictReader(io.StringIO(make_table(chosen, "csv"))))


def markdown_cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
