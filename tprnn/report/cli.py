"""`tprnn report` and `tprnn plot`: arguments, and result pages that hold the tables they were made by."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from tprnn.errors import UserError, nearest

# Everything that takes time to import is imported where it is needed: --help must come at once.

FORMATS = ("md", "latex", "csv")
EXAMPLE = "tprnn train task=temporal_order trainer=tptt task.T=30"


class _Parser(argparse.ArgumentParser):
    """Errors as one line, like everywhere else in tprnn."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _report_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tprnn report",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Tables of runs: one line for each group of runs that differ in their seed only.",
        epilog="""examples:
  tprnn report --where task=adding trainer=tptt,tptt_hx T=30
  tprnn report --paper manchev2020/table1 --format latex
  tprnn report --into docs/results/manchev2020.md

A page given by --into holds blocks
  <!-- tprnn report ARGUMENTS -->
  <!-- end -->
With --into alone every block is written anew from its ARGUMENTS; with further arguments only the
block of these, which is added at the end of the page where it is not there yet.
Exit code 2 when files of runs are damaged: they are named, and all other runs are still shown.""",
    )
    parser.add_argument("outputs", nargs="?", default="outputs", help="folder of runs (default: outputs)")
    _add_where(parser)
    parser.add_argument("--paper", metavar="TABLE", help="ours beside published, e.g. manchev2020/table1")
    parser.add_argument("--format", default="md", metavar="|".join(FORMATS), help="default: md")
    parser.add_argument("--into", metavar="FILE", help="write the table into a markdown page, between its marker lines")
    return parser


def _add_where(parser: argparse.ArgumentParser) -> None:
    told = "only runs with these config values or this status; commas between allowed values"
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=told)


def report_main(argv: Sequence[str]) -> int:
    """Run `tprnn report ARGV`. Exit code 0, or 2 where files of runs are damaged. Raises UserError."""
    args = _report_parser().parse_args(list(argv))
    if args.into is None:
        text, damaged = _report(argv)
        print(text)
        return _tell(damaged)
    page, rest = Path(args.into), _without_into(argv)
    old = _read_page(page, must_exist=not rest)
    text, damaged = rewrite(old, rest, _block, page)
    if text != old:
        from tprnn.files import write_atomically

        write_atomically(page.resolve(), text.encode())
    print(f"{page}: {'unchanged' if text == old else 'written'}")
    return _tell(damaged)


def _report(argv: Sequence[str]) -> tuple[str, list[str]]:
    """(text, lines about damaged files) of `tprnn report ARGV`."""
    args = _report_parser().parse_args(list(argv))
    if args.format not in FORMATS:
        raise UserError(f"--format: no format '{args.format}'; {nearest(args.format, FORMATS)}")
    if args.into is not None:
        raise UserError("--into: a block of a page cannot write into a page itself")
    if args.paper is not None and args.where:
        raise UserError("--where: cannot be combined with --paper, which chooses its runs itself")
    from tprnn.report.frame import parse_where, read_rows, select
    from tprnn.report.tables import make_table

    where = parse_where(args.where)
    if args.paper is not None:
        from tprnn.report.paper import paper_report

        text = paper_report(Path(args.outputs), args.paper, args.format).rstrip("\n")
        return text, [str(error) for error in read_rows(args.outputs)[1]]
    rows, damaged = read_rows(args.outputs)
    chosen = select(rows, where)
    if chosen:
        text = make_table(chosen, args.format)
    elif rows:
        text = f"None of the {len(rows)} runs in {args.outputs} has {' '.join(args.where)}."
    elif damaged:
        text = f"No run in {args.outputs} can be read."
    else:
        text = f"No runs in {args.outputs} yet; make one, for example: {EXAMPLE}"
    return text, [str(error) for error in damaged]


def _block(argv: Sequence[str]) -> tuple[str, list[str]]:
    """As `_report`, fit for a markdown page."""
    text, damaged = _report(argv)
    plain = _report_parser().parse_args(list(argv)).format != "md"
    return f"```\n{text}\n```" if plain else text, damaged


def _tell(damaged: Iterable[str]) -> int:
    lines = dict.fromkeys(damaged)
    for line in lines:
        print(f"tprnn report: {line}", file=sys.stderr)
    return 2 if lines else 0


# ---- pages

_START = re.compile(r"<!--\s*tprnn report\b(.*?)-->\s*")
_END = re.compile(r"<!--\s*end\s*-->\s*")


def rewrite(
    page: str, only: Sequence[str], report: Callable[[Sequence[str]], tuple[str, list[str]]], name: Path
) -> tuple[str, list[str]]:
    """`page` with its blocks written anew, each from the arguments of its first line; and what was damaged.

    Where `only` holds arguments, that block alone is written, and added at the end if it is not there.
    Blocks inside ``` fences are examples and stay. Raises UserError, naming file and line, for a block without an
    end and for arguments that `report` does not take.
    """
    lines, out, damaged, found = page.splitlines(), list[str](), list[str](), False
    position, fenced = 0, False
    while position < len(lines):
        line = lines[position]
        out.append(line)
        position += 1
        fenced ^= line.lstrip().startswith("```")
        match = None if fenced else _START.fullmatch(line)
        if match is None:
            continue
        end = next((n for n in range(position, len(lines)) if _END.fullmatch(lines[n])), None)
        following = next((n for n in range(position, len(lines)) if _START.fullmatch(lines[n])), len(lines))
        if end is None or following < end:
            raise UserError(f"{name}, line {position}: this block has no line '<!-- end -->'")
        try:
            arguments = shlex.split(match[1])
            if not only or arguments == list(only):
                found = True
                text, more = report(arguments)
                damaged += more
                out += ["", text, ""]
            else:
                out += lines[position:end]
        except (UserError, ValueError) as error:
            raise UserError(f"{name}, line {position}: {error}") from error
        out.append(lines[end])
        position = end + 1
    if not found and not only:
        raise UserError(f"{name}: no line '<!-- tprnn report ARGUMENTS -->' outside of code blocks")
    if not found:
        text, damaged = report(only)
        out += [*[""] * bool(out), f"<!-- tprnn report {shlex.join(only)} -->", "", text, "", "<!-- end -->"]
    return "\n".join(out) + "\n", damaged


def _without_into(argv: Sequence[str]) -> list[str]:
    rest, skip = [], False
    for word in argv:
        if skip or word.startswith("--into="):
            skip = False
        elif word == "--into":
            skip = True
        else:
            rest.append(word)
    return rest


def _read_page(page: Path, must_exist: bool) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            raise UserError(f"--into: there is no file '{page}'; give arguments to make one") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--into: cannot read '{page}' ({error})") from error


# ---- plot


def _plot_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tprnn plot",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Training curves of runs (loss, accuracy, spectral radius) as PNG and SVG, the data beside as CSV.",
        epilog="""examples:
  tprnn plot outputs/runs/adding-T30-tptt-s0-0123456789
  tprnn plot 'temporal_order-T100-*' --where alpha_i=0.1
  tprnn plot --where task=adding T=30

Runs that differ in their seed only share a colour: a thin line each, their median in bold.""",
    )
    told = "run folder, run name, signature, quoted pattern of names, or folder of runs (default: all runs)"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=told)
    parser.add_argument("--outputs", metavar="DIR", help="folder of runs (default: outputs)")
    _add_where(parser)
    told = "default: plots/curves-<hash>.png in the folder of runs; .png, .svg or .pdf"
    parser.add_argument("--output", metavar="FILE", help=told)
    return parser


def plot_main(argv: Sequence[str]) -> int:
    """Run `tprnn plot ARGV`. Exit code 0, or 2 where files of runs are damaged. Raises UserError."""
    args = _plot_parser().parse_args(list(argv))
    from tprnn.report.figures import default_file, plot_curves, read_curves
    from tprnn.report.frame import parse_where, rows_of, select
    from tprnn.store import Store

    store = Store(args.outputs or "outputs")
    where = parse_where(args.where)
    folders = {str(f.path.resolve()): f for run in args.runs or ["*"] for f in store.find(run)}
    rows, damaged = rows_of(folders.values())
    curves, more = read_curves(select(rows, where))
    damaged += more
    for error in damaged:
        print(f"tprnn plot: {error}", file=sys.stderr)
    if not curves:
        raise UserError("none of the chosen runs has metrics to draw; see tprnn report for what there is")
    home = Path(curves[0].row["path"]).parent
    root = home.parent if home.name == "runs" and args.outputs is None else store.root
    file = Path(args.output) if args.output else default_file(root, curves)
    runs = "1 run" if len(curves) == 1 else f"{len(curves)} runs"
    print(f"{runs} drawn:", *plot_curves(curves, file))
    return 2 if damaged else 0
