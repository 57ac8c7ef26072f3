"""Small sets of images in the form of the published ones, for tests that need files and not those."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tprnn import datasets
from tprnn.datasets import DataSet, File
from tprnn.tasks import mnist_sequential as task

TRAIN, TEST, HELD_OUT = 60, 20, 10


def idx_bytes(values: Tensor) -> bytes:
    """An IDX file, written from its definition."""
    head = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + bytes(values.flatten().tolist())


class Small:
    """A data set of random images: image n of all has n in its first pixel, so that it can be told."""

    def __init__(self) -> None:
        drawn = torch.randint(256, (TRAIN + TEST, 28, 28), generator=torch.Generator().manual_seed(0))
        drawn[:, 0, 0] = torch.arange(TRAIN + TEST)
        self.images = drawn.to(torch.uint8)
        self.classes = torch.arange(TRAIN + TEST).to(torch.uint8) * 3 % 10
        values = {
            "train-images-idx3-ubyte": self.images[:TRAIN],
            "train-labels-idx1-ubyte": self.classes[:TRAIN],
            "t10k-images-idx3-ubyte": self.images[TRAIN:],
            "t10k-labels-idx1-ubyte": self.classes[TRAIN:],
        }
        self.plain = {name: idx_bytes(each) for name, each in values.items()}
        self.packed = {name: gzip.compress(data, mtime=0) for name, data in self.plain.items()}

    def described(self, plain: bool = True) -> DataSet:
        def sha(data: bytes) -> str:
            return hashlib.sha256(data).hexdigest()

        files = [
            File(name, len(data), sha(self.packed[name]), sha(data) if plain else None)
            for name, data in self.plain.items()
        ]
        return DataSet("mnist", "small", files, {"train": TRAIN, "test": TEST}, [])

    def write(self, folder: Path, packed: bool = True) -> Path:
        """Write its files into folder/mnist; that folder."""
        place = folder / "mnist"
        place.mkdir(parents=True)
        for name in self.plain:
            data = self.packed[name] if packed else self.plain[name]
            (place / (f"{name}.gz" if packed else name)).write_bytes(data)
        return place


def install(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Let `mnist` be a small data set."""
    small = Small()
    monkeypatch.setitem(datasets.SETS, "mnist", small.described())
    monkeypatch.setattr(task, "HELD_OUT", HELD_OUT)
    monkeypatch.setattr(task, "SUBSET", {"train": 12, "validation": 5, "test": 5})
    return small
