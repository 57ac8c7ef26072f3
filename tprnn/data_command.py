"""`tprnn data`: puts published data sets where tasks look for them, each file checked by its SHA-256."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tprnn.arguments import Parser
from tprnn.datasets import ENVIRONMENT, SETS, DataSet, File, data_folder
from tprnn.errors import UserError, nearest
from tprnn.files import write_atomically, writing

_DESCRIPTION = f"""Put a data set where tasks look for it; without NAME, say which are there.

The folder is that of data=DIR, else of the environment's {ENVIRONMENT}, else of the user's cache. Each file is checked
by its SHA-256 before it is put there, and again when a task reads it."""


def main(argv: Sequence[str]) -> int:
    """`tprnn data [NAME] [--from DIR] [data=DIR]`. Raises UserError."""
    parser = Parser("tprnn data", _DESCRIPTION)
    parser.add_argument("name", nargs="?", help=f"{', '.join(SETS)}; none: which are there")
    parser.add_argument(
        "--from", dest="source", metavar="DIR", help="copy the files from there; without: download them"
    )
    folders = [word.removeprefix("data=") for word in argv if word.startswith("data=")]
    args = parser.parse_intermixed_args([word for word in argv if not word.startswith("data=")])
    if len(folders) > 1 or "" in folders:
        raise UserError(f"data: expected one folder, got {' and '.join(map(repr, folders))}")
    data = folders[0] if folders else None
    if args.name is None:
        if args.source is not None:
            raise UserError(f"--from: of which data set? {nearest('', SETS)}")
        for one in SETS.values():
            print(f"{one.name:14} {'missing' if _lacking(one, data) else 'there  '}  {one.title}")
        print(f"in {data_folder(data)}")
        return 0
    if args.name not in SETS:
        raise UserError(f"no data set '{args.name}'; {nearest(args.name, SETS)}")
    one = SETS[args.name]
    if args.source is not None:
        _copy(one, Path(args.source), data)
    elif _lacking(one, data) is not None:
        _download(one, one.folder(data))
        one.read(data)
    print(f"{one.name}: {len(one.files)} files, checked, in {one.folder(data)}")
    return 0


def _lacking(one: DataSet, data: str | None) -> UserError | None:
    """What is wrong with the files of a data set; None: nothing."""
    try:
        one.read(data)
    except UserError as error:
        return error
    return None


def _copy(one: DataSet, source: Path, data: str | None) -> None:
    """Copy the files of a data set, each as it lies there, if all are what they should be. Raises UserError."""
    if not source.is_dir():
        raise UserError(f"--from: no folder '{source}'")
    found, folder = one.find([source, source / one.name]), one.folder(data)
    _make(folder)
    for name, file in found.items():
        path = folder / file.path.name
        if file.path.resolve() != path.resolve():
            write_atomically(path, file.raw)
        for other in (folder / f"{name}.gz", folder / name):  # of a packed and an unpacked one, one would be read
            if other != path:
                with writing(other):
                    other.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _download(one: DataSet, folder: Path) -> None:
    """Download what is not there; a file that is there as published is left. Raises UserError."""
    try:
        import pooch
    except ImportError:
        advice = f"pip install 'tprnn[data]', or tprnn data {one.name} --from DIR for files that you have"
        raise UserError(f"{one.name}: downloads need pooch; {advice}") from None
    pooch.get_logger().setLevel(logging.WARNING)
    _make(folder)
    for file in one.files:
        _fetch(one, file, folder)


def _fetch(one: DataSet, file: File, folder: Path) -> None:
    """Download one file from the first address that has it. Raises UserError."""
    import pooch

    failed = []
    for address in one.addresses:
        try:
            pooch.retrieve(
                url=f"{address}{file.name}.gz",
                known_hash=f"sha256:{file.packed}",
                fname=f"{file.name}.gz",
                path=folder,
                progressbar=sys.stderr.isatty(),
            )
        except (OSError, ValueError) as error:  # no answer; another file than the published one
            failed.append(f"{address} ({type(error).__name__})")
        else:
            return
    raise UserError(
        f"{one.name}: cannot download {file.name}.gz from {' or '.join(failed)}; what is there is kept; "
        f"tprnn data {one.name} --from DIR takes files that you have"
    )
