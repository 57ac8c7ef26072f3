"""Markdown pages that hold the tables and figures they were made by, between marker lines.

<!-- tprnn report --paper manchev2020/table1 -->
<!-- end -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tprnn.errors import UserError
from tprnn.files import write_atomically

# the text of a block and lines about damaged files, from its arguments and the page it stands in
Writer = Callable[[Sequence[str], Path], tuple[str, list[str]]]
Block = tuple[str, Sequence[str]]
"""A command and its arguments."""

_START = re.compile(r"<!--\s*tprnn (report|plot)\b(.*?)-->\s*")
_END = re.compile(r"<!--\s*end\s*-->\s*")


def write_page(page: Path, only: Block | None, writers: Mapping[str, Writer]) -> tuple[bool, list[str]]:
    """Write the blocks of a page anew: whether it has changed, and what was damaged. Raises UserError."""
    old = _read(page, must_exist=only is None)
    text, damaged = rewrite(old, only, writers, page)
    if text != old:
        write_atomically(page.resolve(), text.encode())
    return text != old, damaged


def rewrite(page: str, only: Block | None, writers: Mapping[str, Writer], name: Path) -> tuple[str, list[str]]:
    """`page` with its blocks written anew, each from the arguments of its first line; and what was damaged.

    With `only`, that block alone is written, and added at the end if it is not there.
    Blocks inside ``` fences are examples and stay. Raises UserError, naming file and line, for a block without an
    end and for arguments that its command does not take.
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
            command, arguments = match[1], shlex.split(match[2])
            if only is None or (command, arguments) == (only[0], list(only[1])):
                found = True
                text, more = writers[command](arguments, name)
                damaged += more
                out += ["", text, ""]
            else:
                out += lines[position:end]
        except (UserError, ValueError) as error:
            raise UserError(f"{name}, line {position}: {error}") from error
        out.append(lines[end])
        position = end + 1
    if not found and only is None:
        raise UserError(f"{name}: no line '<!-- tprnn report ARGUMENTS -->' outside of code blocks")
    if not found and only is not None:
        text, damaged = writers[only[0]](only[1], name)
        out += [*[""] * bool(out), f"<!-- tprnn {only[0]} {shlex.join(only[1])} -->", "", text, "", "<!-- end -->"]
    return "\n".join(out) + "\n", damaged


def without_into(argv: Sequence[str]) -> list[str]:
    """Arguments without --into and its value."""
    rest, skip = [], False
    for word in argv:
        if skip or word.startswith("--into="):
            skip = False
        elif word == "--into":
            skip = True
        else:
            rest.append(word)
    return rest


def _read(page: Path, must_exist: bool) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            raise UserError(f"--into: there is no file '{page}'; give arguments to make one") from None
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--into: cannot read '{page}' ({error})") from error
