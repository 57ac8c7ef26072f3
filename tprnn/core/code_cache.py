"""Where compiled code is kept from one command to the next: a folder that really can be written, or none.

What lies in Numba's cache is code that will be run, so a folder is taken only where it is ours. In order:

1. `tprnn/<state>` below NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache
2. `tprnn-<user>/<state>` in the folder for temporary files, if it is closed to all others
3. a fresh temporary folder, for this command and the processes that it starts
4. none: everything is compiled anew by each process

Compiled files hold code of one another, and Numba asks only whether a function's own file has changed: <state> is a
hash of all of them.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

CHOSEN = "TPRNN_CODE_CACHE"
"""Set for the processes that this one starts: the temporary folder, if any. Where it is set, all has been said."""

_PROBE = bytes(2**18)  # the largest file of a kernel is half as long
_SHARED = stat.S_IWGRP | stat.S_IWOTH


@functools.cache
def choose() -> Path | None:
    """The folder; None where there is none. Says so once for a command where it is not the first of the list.

    To be called before other processes are started that compile: they then take the same folder and keep quiet.
    """
    name = state()
    try:
        folder = _root() / "tprnn" / name
        _take(folder, anyone=bool(os.environ.get("NUMBA_CACHE_DIR")))
        return folder
    except (OSError, RuntimeError) as error:
        problem = error
    home = _temporary(name)
    if CHOSEN not in os.environ:
        _warn(problem, home)
    os.environ[CHOSEN] = str(home or "")
    return home and home / name


@functools.cache
def state() -> str:
    """Ten hex digits for the text of all files that hold compiled code."""
    files = sorted(Path(__file__).parents[1].rglob("*compiled*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]


def _root() -> Path:
    """The user's folder for caches. Raises RuntimeError for a user without a home."""
    named = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else Path.home() / ".cache"


def _temporary(name: str) -> Path | None:
    """A folder for temporary files that is ours alone, in which `name` can be written."""
    try:
        parent = Path(tempfile.gettempdir())
        _require_settled(parent)
    except OSError:
        return None
    handed_down = os.environ.get(CHOSEN)
    for home in (parent / f"tprnn-{_user()}", *([Path(handed_down)] if handed_down else [])):
        try:
            os.makedirs(home, mode=0o700, exist_ok=True)
            _require_closed(home)
            _take(home / name)
        except OSError:
            continue
        return home
    try:
        home = Path(tempfile.mkdtemp(prefix="tprnn-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        _take(home / name)
    except OSError:
        return None
    return home


def _take(folder: Path, anyone: bool = False) -> None:
    """Make a folder and write to it. Raises OSError where that fails, or where it is not ours (but with `anyone`)."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if not anyone and (owner := os.lstat(folder).st_uid) != _user():
        raise PermissionError(0, f"belongs to user {owner}", str(folder))
    with tempfile.TemporaryFile(dir=folder) as probe:  # a full disk lets a file be made, and fails when it is written
        probe.write(_PROBE)


def _require_closed(folder: Path) -> None:
    """Raise PermissionError unless this is a folder, no link, that nobody else can look into."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user() or found.st_mode & 0o077:
        raise PermissionError(0, "is not ours alone", str(folder))


def _require_settled(folder: Path) -> None:
    """Raise PermissionError where somebody else could put another folder in the place of ours."""
    found = os.stat(folder)
    if found.st_uid not in (0, _user()) or (found.st_mode & _SHARED and not found.st_mode & stat.S_ISVTX):
        raise PermissionError(0, "is open to others", str(folder))


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _warn(problem: OSError | RuntimeError, home: Path | None) -> None:
    if isinstance(problem, OSError):
        why = f"in {problem.filename or _root()} ({problem.strerror})"
    else:
        why = f"({str(problem).rstrip('.')})"
    instead = f"it goes to {home}" if home else "every process compiles anew"
    print(
        f"tprnn: warning: compiled code cannot be kept {why}: {instead}; NUMBA_CACHE_DIR=DIR names another folder",
        file=sys.stderr,
    )
