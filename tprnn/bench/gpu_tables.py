"""The tables of docs/performance.md that stand on gpu.json, as far as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

Row = dict[str, Any]


def blocks(content: Mapping[str, Any]) -> dict[str, str]:
    """Blocks of the page by name."""
    parts = content["parts"]
    return {"gpu: machine": _machine(parts), "gpu: iterations": _iterations(parts), "gpu: grid": _grid(parts)}


def _rows(parts: Mapping[str, Any], *names: str) -> dict[str, Row]:
    return {key: row for name in names for key, row in parts.get(name, {}).get("rows", {}).items()}


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _table(rows: list[Row]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, colalign=["right"] * len(rows[0]))


def _machine(parts: Mapping[str, Any]) -> str:
    """What it is, what it can do, and what the tests say."""
    found = _rows(parts, "machine")
    facts, rates, tests = found.get("facts", {}), found.get("rates", {}), _rows(parts, "tests").values()
    if not facts:
        return "Not measured yet."
    card = f"{facts['card']}, {facts.get('card_memory_gib')} GiB, PyTorch {facts['torch']}, CUDA {facts.get('cuda')}"
    host = f"Python {facts['python']}; {facts['cores']} cores ({facts['cpu']}); commit {facts['commit']}"
    lines = [f"- {card}, {host}."]
    if rates:
        lines.append(
            f"- Measured there: {rates['flops'] / 1e12:.1f} TFLOP/s in a large float32 product, "
            f"{rates['bytes_per_second'] / 1e12:.2f} TB/s in a copy (read and written), "
            f"{_number(rates['kernel_us'], '.2f')} µs for each of a chain of small products in a graph; "
            f"[100, 100]: {rates['svd_ms']:.1f} ms for singular vectors (on a core {rates['svd_ms_cpu']:.1f}), "
            f"{rates['eigenvalues_ms']:.1f} ms for eigenvalues ({rates['eigenvalues_ms_cpu']:.1f})."
        )
    if tests:
        outcomes = [row["outcome"] for row in tests]
        told = ", ".join(f"{outcomes.count(name)} {name}" for name in sorted(set(outcomes)))
        lines.append(f"- Tests that need a GPU: {told}.")
    if same := _rows(parts, "bits"):
        told = ", ".join(f"{name} {'yes' if row['equal'] else 'NO'}" for name, row in same.items())
        lines.append(f"- The same bits twice in each of two processes: {told}.")
    return "\n".join(lines + _missing(parts))


def _missing(parts: Mapping[str, Any]) -> list[str]:
    cut = [f"{name} ({part['status']})" for name, part in parts.items() if part["status"] != "done"]
    return [f"- Not complete: {', '.join(cut)}."] if cut else []


def _iterations(parts: Mapping[str, Any]) -> str:
    """ms per run-iteration beside the floor and beside a core."""
    cores = _rows(parts, "core")
    rows = []
    for row in _rows(parts, "times", "more times").values():
        core = cores.get(f"{row['trainer']}, T = {row['T']}", {}).get("ms")
        shown: Row = {"trainer": row["trainer"], "T": str(row["T"]), "R": str(row["R"])}
        if "left_out" in row:
            rows.append(shown | {"ms": f"left out: {row['left_out']}"})
            continue
        rows.append(
            shown
            | {
                "ms": _number(row["ms"], ".4f"),
                "of FLOPs": _number(row.get("flops_ms"), ".4f"),
                "of bytes": _number(row.get("bytes_ms"), ".4f"),
                "ratio": _number(row.get("ratio"), ".1f"),
                "call by call": _number(row["call_by_call_ms"], ".3f"),
                "one core": _number(core, ".3f"),
                "core / GPU": _number(core and core / row["ms"], ".1f"),
                "GiB": _number(row.get("memory_gib"), ".1f"),
            }
        )
    return _table(rows) if rows else "Not measured yet."


def _grid(parts: Mapping[str, Any]) -> str:
    """Run-iterations a second of the grid."""
    rows = []
    for row in _rows(parts, "grid").values():
        ended = ", ".join(f"{count} {name}" for name, count in row["ended"].items())
        rows.append(_grid_row("the GPU", row) | {"seconds": f"{row['seconds']:.0f}", "ended": ended})
    for row in _rows(parts, "processes").values():
        shown = _grid_row(f"{row['processes']} processes", row)
        rows.append(shown | {"seconds": _number(row.get("seconds"), ".0f"), "ended": row.get("left_out", "")})
    return _table(rows) if rows else "Not measured yet."


def _grid_row(name: str, row: Row) -> Row:
    return {
        "on": name,
        "run-iterations a second": _number(row.get("per_second"), ",.0f"),
        "begun after (s)": _number(row.get("begun_after"), ".1f"),
    }
