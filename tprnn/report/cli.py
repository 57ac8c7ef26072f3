"""`tprnn report` and `tprnn plot`: arguments, and result pages that hold the tables they were made by."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap

from tprnn.arguments import DEFAULT, Parser, existing_folder, one_folder, take_outputs
from tprnn.errors import UserError, nearest
from tprnn.report.tables.words import explained

# Everything that takes time to import is imported where it is needed: --help must come at once.

FORMATS = ("md", "latex", "csv")
EXAMPLE = "tprnn train task=temporal_order trainer=tptt task.T=30"


def _report_parser() -> Parser:
    words = ("\n".join(wrap(line, 118, initial_indent="  ", subsequent_indent="    ")) for line in explained())
    parser = Parser(
        "tprnn report",
        "Tables of runs: one line for each group of runs that differ in their seeds only.",
        epilog="verdicts of --paper:\n"
        + "\n".join(words)
        + """

examples:
  tprnn report --where task=adding trainer=tptt,tptt_hx T=30
  tprnn report outputs=elsewhere
  tprnn report --where max_iterations=5000
  tprnn report --paper manchev2020/table1 --format latex
  tprnn report --paper manchev2020/table1 --budget laptop
  tprnn report --into docs/results/manchev2020.md

A budget is a view: with max_iterations=5000 a run that went further is seen as it was after 5000 iterations, and one
that was solved later is not solved. Without it runs are seen at each budget by which one of their group was cut.
Seconds are those of a run's own iterations and checks, without compiling; on a GPU its share of its stack's.

A page given by --into holds blocks
  <!-- tprnn report ARGUMENTS -->
  <!-- end -->
and figures in blocks <!-- tprnn plot PAPER/FIGURE --output FILE -->, drawn and linked.
With --into alone every block is written anew from its ARGUMENTS; with further arguments only the
block of these, which is added at the end of the page where it is not there yet.
Exit code 2 when files of runs are damaged: they are named, and all other runs are still shown.""",
    )
    parser.add_argument("outputs", nargs="?", metavar="DIR", help="folder of runs, as outputs=DIR (default: outputs)")
    _add_where(parser)
    parser.add_argument("--paper", metavar="TABLE", help="ours beside published, e.g. manchev2020/table1")
    told = "with --paper: no run counts for more iterations; smoke, laptop, paper or a number (default: all it had)"
    parser.add_argument("--budget", metavar="NAME|N", help=told)
    told = "with --paper: columns of rules of one's own, as tprnn reproduce TABLE trainers=A,B makes them"
    parser.add_argument("--trainers", metavar="A,B", help=told)
    parser.add_argument("--format", default="md", metavar="|".join(FORMATS), help="default: md")
    parser.add_argument("--into", metavar="FILE", help="write the table into a markdown page, between its marker lines")
    return parser


def _add_where(parser: Parser) -> None:
    told = "only runs with these config values or this status; commas between allowed values"
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=told)


def _split_where(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What follows --where: its conditions, and words without '=' after the last of them, which are no conditions."""
    last = max((place for place, word in enumerate(words) if "=" in word), default=len(words) - 1)
    return list(words[: last + 1]), list(words[last + 1 :])


def _report_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parsed; `outputs` is the folder of runs however it was named, or None. Raises UserError."""
    named, words = take_outputs(argv)
    args = _report_parser().parse_args(words)
    args.where, folders = _split_where(args.where)
    args.outputs = one_folder([args.outputs, *folders, named])
    return args


def report_main(argv: Sequence[str]) -> int:
    """Run `tprnn report ARGV`. Exit code 0, or 2 where files of runs are damaged. Raises UserError."""
    args = _report_arguments(argv)
    if args.into is None:
        text, damaged = _report(argv)
        print(text)
        return _tell("report", damaged)
    return _write_page(args.into, "report", argv)


def _write_page(page: str, name: str, argv: Sequence[str]) -> int:
    """`tprnn NAME ARGV --into PAGE`: the block of these arguments, or all blocks where there are none."""
    from tprnn.report.pages import without_into, write_page

    file, rest = Path(page), without_into(argv)
    changed, damaged = write_page(file, (name, rest) if rest else None, {"report": _block, "plot": _plot_block})
    print(f"{file}: {'written' if changed else 'unchanged'}")
    return _tell(name, damaged)


def _report(argv: Sequence[str]) -> tuple[str, list[str]]:
    """(text, lines about damaged files) of `tprnn report ARGV`."""
    args = _report_arguments(argv)
    if args.format not in FORMATS:
        raise UserError(f"--format: no format '{args.format}'; {nearest(args.format, FORMATS)}")
    if args.into is not None:
        raise UserError("--into: a block of a page cannot write into a page itself")
    if args.paper is not None and args.where:
        raise UserError("--where: cannot be combined with --paper, which chooses its runs itself")
    if args.budget is not None and args.budget.isdecimal() and int(args.budget) < 1:
        raise UserError(f"--budget: expected a budget's name or a whole number of at least 1, got '{args.budget}'")
    if args.budget is not None and args.paper is None:
        raise UserError("--budget: is for --paper; without it give --where train.max_iterations=N")
    if args.trainers is not None and args.paper is None:
        raise UserError("--trainers: is for --paper; without it give --where trainer=A,B")
    from tprnn.report.rows.frame import parse_where, read_rows
    from tprnn.report.tables.plain import make_table
    from tprnn.report.tables.views import choose

    where = parse_where(args.where)
    outputs = existing_folder(args.outputs)
    if args.paper is not None:
        from tprnn.report.tables.paper import paper_report

        trainers = tuple(args.trainers.split(",")) if args.trainers else ()
        text = paper_report(Path(outputs), args.paper, args.format, args.budget, trainers).rstrip("\n")
        return text, [str(error) for error in read_rows(outputs)[1]]
    rows, damaged = read_rows(outputs)
    chosen, more = choose(rows, where)
    damaged += more
    if chosen:
        text = make_table(chosen, args.format)
    elif rows:
        text = f"None of the {len(rows)} runs in {outputs} has {' '.join(args.where)}."
    elif damaged:
        text = f"No run in {outputs} can be read."
    else:
        text = f"No runs in {outputs} yet; make one, for example: {EXAMPLE}"
    return text, [str(error) for error in damaged]


def _block(argv: Sequence[str], page: Path) -> tuple[str, list[str]]:
    """As `_report`, fit for a markdown page."""
    text, damaged = _report(argv)
    plain = _report_arguments(argv).format != "md"
    return f"```\n{text}\n```" if plain else text, damaged


def _tell(name: str, damaged: Iterable[str]) -> int:
    """Name damaged files; the exit code of `tprnn NAME`."""
    lines = dict.fromkeys(damaged)
    for line in lines:
        print(f"tprnn {name}: {line}", file=sys.stderr)
    return 2 if lines else 0


# ---- plot


def _plot_parser() -> Parser:
    parser = Parser(
        "tprnn plot",
        "Training curves of runs (loss, accuracy, spectral radius), or a paper's figure from its runs, "
        "as PNG and SVG, the data beside as CSV.",
        epilog="""examples:
  tprnn plot outputs/runs/adding-T30-tptt-s0-0123456789
  tprnn plot 'temporal_order-T100-*' --where alpha_i=0.1
  tprnn plot --where task=adding T=30
  tprnn plot manchev2025/fig2 budget=smoke

Runs that differ in their seeds only share a colour: a thin line each, their median in bold.
A paper's figure (tprnn list papers) needs the runs of 'tprnn reproduce' with the same budget (default: laptop);
those that are missing are named, with the command that makes them, and the others drawn.""",
    )
    told = "run folder, run name, signature, quoted pattern of names, or folder of runs (default: all runs)"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{told}; or one PAPER/FIGURE [budget=NAME]")
    parser.add_argument("--outputs", metavar="DIR", help="folder of runs, as outputs=DIR (default: outputs)")
    _add_where(parser)
    told = "default: plots/curves-<hash>.png or plots/<paper>-<figure>.png in the folder of runs; .png, .svg or .pdf"
    parser.add_argument("--output", metavar="FILE", help=told)
    parser.add_argument(
        "--into", metavar="PAGE", help="put a paper's figure into a markdown page, as tprnn report does"
    )
    return parser


def _plot_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parsed; `outputs` is the folder of runs however it was named, or None. Raises UserError."""
    named, words = take_outputs(argv)
    args = _plot_parser().parse_intermixed_args(words)
    args.where, runs = _split_where(args.where)
    args.runs += runs
    args.outputs = one_folder([args.outputs, named])
    return args


def plot_main(argv: Sequence[str]) -> int:
    """Run `tprnn plot ARGV`. Exit code 0, or 2 where files of runs are damaged. Raises UserError."""
    args = _plot_arguments(argv)
    if args.into is not None or any(map(_means_figure, args.runs)):
        return _plot_paper(args, argv)
    from tprnn.report.figures.runs import default_file, plot_curves, read_curves
    from tprnn.report.rows.frame import parse_where, rows_of
    from tprnn.report.tables.views import choose
    from tprnn.store import Store

    store = Store(existing_folder(args.outputs))
    where = parse_where(args.where)
    folders = {str(f.path.resolve()): f for run in args.runs or ["*"] for f in store.find(run)}
    rows, damaged = rows_of(folders.values())
    chosen, more = choose(rows, where, split=False)
    curves, torn = read_curves(chosen)
    damaged += [*more, *torn]
    _tell("plot", map(str, damaged))
    if not curves:
        raise UserError("none of the chosen runs has metrics to draw; see tprnn report for what there is")
    home = Path(curves[0].row["path"]).parent
    root = home.parent if home.name == "runs" and args.outputs is None else store.root
    file = Path(args.output) if args.output else default_file(root, curves)
    runs = "1 run" if len(curves) == 1 else f"{len(curves)} runs"
    print(f"{runs} drawn:", *plot_curves(curves, file))
    return 2 if damaged else 0


def _means_figure(word: str) -> bool:
    """Whether a word is of `tprnn plot PAPER/FIGURE budget=NAME`. Raises UserError for the name of no figure."""
    from tprnn.report.figures.paper import is_figure

    return word.startswith("budget=") or is_figure(word)


def _chosen(args: argparse.Namespace) -> tuple[str, str]:
    """(PAPER/FIGURE, budget) of `tprnn plot PAPER/FIGURE [budget=NAME]`. Raises UserError."""
    from tprnn.papers.recipes import figure_names

    budgets = [word.removeprefix("budget=") for word in args.runs if word.startswith("budget=")]
    names = [word for word in args.runs if not word.startswith("budget=")]
    if len(names) != 1 or names[0] not in figure_names() or len(budgets) > 1:
        raise UserError(f"expected one PAPER/FIGURE and at most one budget=NAME, got '{' '.join(args.runs)}'")
    if args.where:
        raise UserError("--where: cannot be combined with a paper's figure, which chooses its runs itself")
    return names[0], *(budgets or ["laptop"])


def _plot_paper(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from tprnn.report.figures.paper import draw_paper_figure

    name, budget = _chosen(args)
    if args.into is not None:
        return _write_page(args.into, "plot", argv)
    drawn = draw_paper_figure(name, budget, args.outputs or DEFAULT, args.output)
    print(drawn.told)
    if drawn.missing:
        print(f"tprnn plot: {drawn.missing}", file=sys.stderr)
    return _tell("plot", drawn.damaged)


def _plot_block(argv: Sequence[str], page: Path) -> tuple[str, list[str]]:
    """A paper's figure drawn, as an image with its caption in a markdown page."""
    from tprnn.report.figures.paper import figure_block

    args = _plot_arguments(argv)
    if args.into is not None or args.output is None:
        raise UserError("a block of a page needs PAPER/FIGURE and --output FILE, and no --into")
    return figure_block(*_chosen(args), args.outputs or DEFAULT, args.output, page)
