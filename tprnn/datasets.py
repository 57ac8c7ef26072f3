"""Published data sets as files: where they lie, what they are called, and whether they are the published ones.

A data set lies in a folder of its name inside the folder of `data=DIR`, else of the environment's TPRNN_DATA, else of
the user's cache; each file as NAME.gz or, unpacked, as NAME. What is read must have the SHA-256 that stands here, so a
run's data follow from its settings, and where the files lie is no part of what a run is.

Sources of the hashes, all of the .gz files as published: MNIST, those that TensorFlow Datasets and other public
loaders check (storage.googleapis.com/cvdf-datasets, ossci-datasets.s3.amazonaws.com); Fashion-MNIST, those that public
loaders check of the files whose MD5 the project's own page gives (github.com/zalandoresearch/fashion-mnist). Those of
unpacked files were computed from the .gz ones; none of Fashion-MNIST was at hand, so of it .gz files alone are taken.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from tprnn.errors import UserError

ENVIRONMENT = "TPRNN_DATA"


@dataclass(frozen=True)
class File:
    """One file of a data set."""

    name: str
    """Unpacked; packed it has the ending .gz."""
    size: int
    """Bytes, unpacked."""
    packed: str
    """SHA-256 of the .gz file as published."""
    plain: str | None
    """SHA-256 of what is in it; None where it is not known."""


@dataclass(frozen=True)
class DataSet:
    """A published data set."""

    name: str
    """Of its folder too."""
    title: str
    files: Sequence[File]
    sequences: Mapping[str, int]
    """How many the published splits have."""
    addresses: Sequence[str]
    """Where `NAME.gz` can be downloaded from, the first that answers."""

    def folder(self, data: str | None) -> Path:
        """Its folder, where `data` is that of all data sets, or None."""
        return data_folder(data) / self.name

    def read(self, data: str | None) -> dict[str, bytes]:
        """What is in its files, by name, unpacked. Raises UserError where one is not the published one."""
        try:
            return {name: found.contents for name, found in self.find([self.folder(data)]).items()}
        except UserError as error:
            where = f" data={data}" if data else ""
            raise UserError(
                f"{error}; tprnn data {self.name} --from DIR{where} puts the published files there"
            ) from error

    def find(self, folders: Sequence[Path]) -> dict[str, Found]:
        """Its files, by name, each from the first of `folders` that has it. Raises UserError as `read` does."""
        return {file.name: self._found(file, folders) for file in self.files}

    def _found(self, file: File, folders: Sequence[Path]) -> Found:
        for path in (folder / name for folder in folders for name in (f"{file.name}.gz", file.name)):
            try:
                raw = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from error
            return Found(path, raw, self._contents(file, path, raw))
        raise UserError(f"{self.name}: no {file.name}.gz and no {file.name} in {' or '.join(map(str, folders))}")

    def _contents(self, file: File, path: Path, raw: bytes) -> bytes:
        """What a file holds, unpacked. Raises UserError where it is not the published one."""
        contents, whole = _unpacked(raw, file.size) if raw.startswith(b"\x1f\x8b") else (raw, True)
        if whole and _sha256(raw) == file.packed:
            return contents
        digest = _sha256(contents)
        if whole and digest == file.plain:
            return contents
        others = [one.name for one in self.files if _sha256(raw) == one.packed or digest == one.plain]
        if not whole:
            told = "damaged: no whole gzip file"
        elif others:
            told = f"expected {file.name}, holds {others[0]}"
        elif len(contents) < file.size:
            told = f"cut: {len(contents):,} bytes of {file.size:,}"
        else:
            told = "not the published file (its SHA-256 differs)"
        raise UserError(f"{path}: {told}")


@dataclass(frozen=True)
class Found:
    """A file that is the published one."""

    path: Path
    raw: bytes
    """As it lies there."""
    contents: bytes
    """Unpacked."""


def data_folder(data: str | None) -> Path:
    """The folder of all data sets: `data`, else that of the environment, else of the user's cache."""
    named = data or os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path(user_cache_dir("tprnn", appauthor=False)) / "data"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unpacked(raw: bytes, size: int) -> tuple[bytes, bool]:
    """What is in a gzip file, no more than a byte beyond `size`, and whether it is whole."""
    contents = b""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            contents = file.read(size + 1)
            return contents, not file.read(1)
    except (OSError, EOFError, zlib.error):
        return contents, False


_SPLITS = {"train": 60_000, "test": 10_000}
_IMAGES = ("train-images-idx3-ubyte", 47_040_016), ("t10k-images-idx3-ubyte", 7_840_016)
_LABELS = ("train-labels-idx1-ubyte", 60_008), ("t10k-labels-idx1-ubyte", 10_008)

MNIST = DataSet(
    name="mnist",
    title="MNIST handwritten digits (LeCun, Cortes and Burges)",
    files=[
        File(
            *_IMAGES[0],
            packed="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            plain="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        File(
            *_LABELS[0],
            packed="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            plain="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        File(
            *_IMAGES[1],
            packed="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            plain="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        File(
            *_LABELS[1],
            packed="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            plain="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ],
    sequences=_SPLITS,
    addresses=[
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
)
FASHION_MNIST = DataSet(
    name="fashion_mnist",
    title="Fashion-MNIST articles of clothing (Xiao, Rasul and Vollgraf 2017)",
    files=[
        File(*_IMAGES[0], packed="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", plain=None),
        File(*_LABELS[0], packed="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", plain=None),
        File(*_IMAGES[1], packed="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", plain=None),
        File(*_LABELS[1], packed="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", plain=None),
    ],
    sequences=_SPLITS,
    addresses=[
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ],
)
SETS = {one.name: one for one in (MNIST, FASHION_MNIST)}
"""By name."""
