"""The `tprnn` command: finds the sub-command and turns errors into one line and an exit code.

Exit codes: 0 done; 1 a run failed; 2 bad input; 3 runs left to another call (locked=leave); 128 + n after a signal n.
Nothing heavy (torch, pandas, hydra) is imported before a sub-command needs it.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from tprnn import __version__, plugins
from tprnn.arguments import FLAGS
from tprnn.errors import UserError, nearest

# name -> (module, function that takes the arguments and returns an exit code, one line of help)
COMMANDS = {
    "train": ("tprnn.train_command", "main", "one run; with -m a grid of runs, packed into stacks"),
    "depth": ("tprnn.protocols.depth", "main", "raise task.T step by step until no run solves it any more"),
    "search": ("tprnn.protocols.search.command", "main", "look for learning rates: random, or by Optuna; resumable"),
    "evaluate": ("tprnn.protocols.evaluate", "main", "a trained network on other lengths"),
    "reproduce": ("tprnn.protocols.reproduce", "main", "the runs behind a published table or figure; resumable"),
    "report": ("tprnn.report.cli", "report_main", "tables of runs, and ours beside published ones"),
    "plot": ("tprnn.report.cli", "plot_main", "training curves of runs, and figures of papers"),
    "data": ("tprnn.data_command", "main", "put published data sets where tasks look for them"),
    "list": ("tprnn.listing", "main", "tasks, models, trainers, optimizers, grids, points, papers, budgets"),
}

# Commands that take overrides, and flags that are short for one.
OVERRIDE_COMMANDS = ("train", "depth", "search", "reproduce")

HELP = """usage: tprnn COMMAND [ARGUMENTS]

{commands}

'tprnn COMMAND --help' shows what a command takes; --force trains anew, --quiet shows no progress.

Of every command:
{places}

  tprnn train task=temporal_order trainer=tptt task.T=30
  tprnn train -m task=adding trainer=tptt,bptt seed=range(3)
  tprnn train -m task=adding trainer=tptt grid=manchev2020
  tprnn depth task=random_permutation trainer=tptt seed=0,1,2
  tprnn search task=copy_memory trainer=tptt_many optimizer=adam
  tprnn reproduce manchev2020/table1 budget=laptop
  tprnn report --paper manchev2020/table1
  tprnn plot manchev2025/fig2

Shell completion: eval "$(tprnn -sc install=bash)"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _escape_what_streams_cannot_show()
    if not words or words[0] in ("-h", "--help"):
        print(usage(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"tprnn {__version__}")
        return 0
    if words[0] in ("-sc", "--shell-completion"):
        return _guarded("tprnn", lambda: _shell_completion(words[1:]))
    name, *rest = words
    if name not in COMMANDS:
        guess = "nearest: train" if "=" in name else nearest(name, COMMANDS)
        return _fail("tprnn", f"unknown command '{name}'; {guess}")
    if name in OVERRIDE_COMMANDS:
        rest = [FLAGS.get(word, word) for word in rest]
    return _guarded(f"tprnn {name}", lambda: _run(name, rest))


def _run(name: str, words: Sequence[str]) -> int:
    """A sub-command with the members that its words, the environment and installed packages name."""
    named, folders, rest = plugins.take_places(words)
    plugins.ask(named, folders, anew=True)
    plugins.folders()  # refuses two files of one name
    if name in OVERRIDE_COMMANDS and (asked := plugins.asked()):
        from tprnn.overrides import as_override

        rest = [*rest, f"plugins={as_override(asked)}"]  # for what runs elsewhere
    module, function, _ = COMMANDS[name]
    return int(getattr(importlib.import_module(module), function)(rest) or 0)


def usage() -> str:
    """The text of `tprnn --help`."""
    return HELP.format(
        places=plugins.PLACES, commands="\n".join(f"  {name:10} {text}" for name, (_, _, text) in COMMANDS.items())
    )


def _guarded(program: str, command: Callable[[], int]) -> int:
    """The exit code of `command`; bad input and interruptions become codes, our own bugs stay tracebacks."""
    try:
        return command()
    except UserError as error:
        if os.environ.get("TPRNN_DEBUG"):
            raise
        return _fail(program, str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of a pipe has left: nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except BaseException as error:
        # tprnn.engine.signals.Interrupted, known by its attribute because its package would bring torch
        signum = getattr(error, "signum", None)
        if signum is None:
            raise
        return 128 + int(signum)


def _fail(program: str, message: str) -> int:
    """One line, control characters escaped; the exit code of bad input."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    print(f"{program}: error: {line}", file=sys.stderr)
    return 2


def _escape_what_streams_cannot_show() -> None:
    r"""Let output streams show ``\u2265`` where their encoding has no character ≥, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _shell_completion(arguments: Sequence[str]) -> int:
    """`-sc install=SHELL` and `uninstall=SHELL` as Hydra has them; `query=SHELL` answers the line in COMP_LINE."""
    task, _, shell = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if task not in ("install", "uninstall", "query") or shell not in ("bash", "fish", "zsh"):
        raise UserError("-sc: expected install=SHELL or uninstall=SHELL; SHELL is bash, fish or zsh")
    if task == "query":
        line = os.environ.get("COMP_LINE", "")
        words = line.split()[1:]
        if not words or line[-1].isspace():
            words.append("")
        if words[0] not in ("train", "depth", "search") or len(words) < 2 or words[-1].startswith("-"):
            print(("\n" if shell == "fish" else " ").join(_choices(words)))
            return 0
        # Hydra's -m: a line in which task or trainer is still missing has completions too
        os.environ["COMP_LINE"] = " ".join(["tprnn", "-m", *(w for w in words[1:-1] if "=" in w), words[-1]])
    return int(importlib.import_module("tprnn.train_command").main(["-sc", *arguments], program="tprnn"))


def _choices(words: Sequence[str]) -> list[str]:
    """What may stand for the last of `words`, where it is no override."""
    from tprnn.listing import SECTIONS, budgets
    from tprnn.listing import members as names

    choices: list[str] = []
    if len(words) == 1:
        choices = list(COMMANDS)
    elif words[0] == "train":
        choices = ["--cfg", "--config-dir", "--force", "--help", "--info", "--multirun", "--plugin", "--quiet"]
    elif words[0] == "list":
        choices = list(SECTIONS)
    elif words[0] == "reproduce":
        choices = [*(name for name, _ in names("paper")), *(f"budget={name}" for name, _ in budgets("paper"))]
    elif words[0] == "plot":
        from tprnn.papers.recipes import figure_names

        choices = [*figure_names(), *(f"budget={name}" for name, _ in budgets("paper"))]
    return [choice for choice in choices if choice.startswith(words[-1])]
