"""The papers' own numbers: a typed reader of `tables.yaml`, one record per printed table cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from tprnn.errors import UserError, nearest


@dataclass(frozen=True)
class Cell:
    """One printed cell. `fields` holds all of its record, the settings of its table's `common` included."""

    id: str
    task: str
    trainer: str
    metric: str
    value: float | None
    # The string as printed; None where the paper prints a mark or the print is lost.
    printed: str | None
    # Settings as the paper gives them; None where it does not.
    params: Mapping[str, float] | None
    # How the paper chose the settings: "best" of a grid search, "common_model" for all tasks, or None.
    selection: str | None
    T: int | None
    solved: bool | None
    uncertain: bool
    note: str | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """One printed table."""

    paper: str
    id: str
    caption: str
    common: Mapping[str, Any]
    columns: tuple[str, ...]
    note: str | None
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """`<paper>/<table>`, as commands take it."""
        return f"{self.paper}/{self.id}"

    def find(
        self,
        *,
        task: str,
        trainer: str,
        selection: str | None = None,
        T: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Cell | None:
        """The one cell of a task, a trainer, a way of selection, a length (where given) and further fields (`where`).

        None where none is printed, or several are.
        """
        found = [
            cell
            for cell in self.cells
            if (cell.task, cell.trainer, cell.selection) == (task, trainer, selection)
            and T in (None, cell.T)
            and all(cell.fields.get(key) == value for key, value in (where or {}).items())
        ]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Paper:
    """One paper and its tables by id."""

    key: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    url: str | None
    tables: Mapping[str, Table]


def _cell(record: Mapping[str, Any], common: Mapping[str, Any]) -> Cell:
    fields = {**common, **record}
    return Cell(
        id=fields["id"],
        task=fields["task"],
        trainer=fields["trainer"],
        metric=fields["metric"],
        value=fields.get("value"),
        printed=fields.get("printed"),
        params=fields.get("params"),
        selection=fields.get("selection"),
        T=fields.get("T"),
        solved=fields.get("solved"),
        uncertain=bool(fields.get("uncertain", False)),
        note=fields.get("note"),
        fields=fields,
    )


def _table(paper: str, record: Mapping[str, Any]) -> Table:
    common = record.get("common") or {}
    return Table(
        paper=paper,
        id=record["id"],
        caption=record["caption"],
        common=common,
        columns=tuple(record["columns"]),
        note=record.get("note"),
        cells=tuple(_cell(cell, common) for cell in record["cells"]),
    )


@cache
def papers() -> Mapping[str, Paper]:
    """All papers by key, read once per process (about 40 ms)."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = resources.files("tprnn.papers").joinpath("tables.yaml").read_text(encoding="utf-8")
    found: dict[str, Paper] = {}
    for record in yaml.load(text, Loader=loader)["papers"]:
        key, citation = record["key"], record["citation"]
        tables = [_table(key, table) for table in record["tables"]]
        found[key] = Paper(
            key=key,
            authors=tuple(citation["authors"]),
            title=citation["title"],
            venue=citation["venue"],
            year=citation["year"],
            url=citation.get("url"),
            tables={table.id: table for table in tables},
        )
    return found


def paper(key: str) -> Paper:
    """A paper by its key, e.g. "manchev2020". Raises UserError for an unknown key."""
    if key not in papers():
        raise UserError(f"no paper '{key}'; {nearest(key, papers())}")
    return papers()[key]


def table(name: str) -> Table:
    """A table by its name, e.g. "manchev2020/table1". Raises UserError for an unknown paper or table."""
    key, slash, table_id = name.partition("/")
    tables = paper(key).tables
    if not slash or table_id not in tables:
        raise UserError(f"no table '{name}'; {nearest(name, [entry.name for entry in tables.values()])}")
    return tables[table_id]
