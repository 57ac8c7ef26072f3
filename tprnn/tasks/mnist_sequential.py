"""Sequential MNIST (Le, Jaitly and Hinton 2015; manchev2020 section 4): which digit was read, pixel by pixel?

An image of 28 x 28 pixels in scan-line order, one pixel at each step: T = 784, I = 1. Pixels are bytes / 255, as in the
released program (the paper does not say). One softmax output of ten classes at the last step.

    0 0 ... 0 .01 .07 .07 .07 .49 .53 .69 ... 0 0  ->  5     (the first training image)

`rows`: a row at each step, T = 28, I = 28. `permuted`: the pixels of all images in one other order, a function of
`permutation_seed` alone; with rows, those are cut from the pixels in that order.

Splits. `reading: paper`: all 60,000 training images train, the test images are the validation set, and the best check
on them is what the paper reports, so that the number is the best of many looks at the test set. `held_out`: the last
10,000 training images are the validation set; the test images are looked at once, at the end. With a `subset` the
training images are 10,000 of those, and each other set is 1,000 of its own, all drawn once and without repetition by
that seed (the released program draws its own with a generator that has none); they stand in the order drawn.

`order: file` goes through the training images as they lie there, epoch after epoch; `shuffled` in an order of its own
for each epoch, drawn by the run's data seed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.core.sets import Epochs, in_order
from tprnn.core.streams import Stream
from tprnn.datasets import SETS, DataSet
from tprnn.readouts.base import Answers
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task

SIDE = 28
PIXELS = SIDE * SIDE
HELD_OUT = 10_000
SUBSET = {"train": 10_000, "validation": 1_000, "test": 1_000}
CLASSES = 10
_COMMONEST = {"mnist": 0.1135, "fashion_mnist": 0.1}

Images = tuple[Tensor, Tensor]
"""Pixels [N, 784] and classes [N], both uint8."""


@dataclass(frozen=True)
class MnistSequentialSettings:
    """conf/task/mnist_sequential.yaml."""

    data_set: str = setting(choices=tuple(SETS))
    reading: str = setting(choices=("paper", "held_out"))
    order: str = setting(choices=("file", "shuffled"))
    rows: bool = setting()
    permuted: bool = setting()
    permutation_seed: int = setting(low=0)
    subset: int | None = setting(low=0)


class MnistSequential(Task):
    """Ten classes, one softmax output at the last step."""

    Settings = MnistSequentialSettings
    outputs, readout = CLASSES, "softmax"
    words = PIXELS
    """Numbers of an image: as many are drawn at once as of tasks that make sequences of so many words."""

    def __init__(self, settings: MnistSequentialSettings, data: str | None = None) -> None:
        self.settings, self.data = settings, data
        self.T, self.inputs = (SIDE, SIDE) if settings.rows else (PIXELS, 1)
        self.epochs: dict[Stream, Epochs] = {}

    @classmethod
    def chance(cls, settings: Mapping[str, Any]) -> float:
        """The share of the commonest class in the test images, a tenth or, of MNIST's digits (the 1), 11.35 %."""
        return _COMMONEST[settings["data_set"]]

    @classmethod
    def sizes(cls, settings: Mapping[str, Any]) -> Mapping[str, int]:
        if settings["subset"] is not None:
            return SUBSET
        there = SETS[settings["data_set"]].sequences
        if settings["reading"] == "paper":
            return {"train": there["train"], "validation": there["test"], "test": there["test"]}
        return {"train": there["train"] - HELD_OUT, "validation": HELD_OUT, "test": there["test"]}

    @classmethod
    def open(cls, settings: MnistSequentialSettings, data: str | None) -> MnistSequential:
        """The task of the files in the folder `data`. Raises UserError where they are not the published ones."""
        task = cls(settings, data)
        task.sets("cpu")  # refused before anything is begun
        return task

    def sets(self, device: str) -> Mapping[str, Images]:
        """The splits by name, on a device."""
        one, chosen = SETS[self.settings.data_set], self.settings
        return _sets(one.name, str(one.folder(self.data)), self.data, chosen.reading, chosen.subset, device)

    def batch(self, stream: Stream, positions: Sequence[int] | Tensor, B: int) -> Batch:
        device = stream.k0.device
        images, classes = self.sets(str(device))[stream.name]
        if stream.name == "train" and self.settings.order == "shuffled":
            rows = self.epochs.setdefault(stream, Epochs(stream, len(images))).rows(positions, B)
        else:
            rows = in_order(stream, positions, B, len(images))
        pixels = images[rows]  # [P * R, B, 784]
        if self.settings.permuted:
            pixels = pixels[..., _permutation(self.settings.permutation_seed, str(device))]
        steps = pixels.unflatten(-1, (self.T, self.inputs)).transpose(1, 2).contiguous()  # bytes: an eighth to move
        # by a tensor: a GPU multiplies by the rounded reciprocal of a number, and has other last bits
        most = torch.full((), 255.0, dtype=torch.float64, device=device)
        return Batch(steps.to(torch.float64).div_(most), classes[rows].long().unsqueeze(1))

    def measure(self, answers: Answers) -> Tensor:
        return (answers.classes == answers.targets).all(1)


@functools.cache
def _permutation(seed: int, device: str) -> Tensor:
    """Which pixel is read at each place, [784]."""
    return _drawn(seed, "permutation", PIXELS).to(device)


def _drawn(seed: int, name: str, N: int) -> Tensor:
    """An order of 0 .. N - 1, a function of a seed and a name."""
    return Stream([seed], f"mnist/{name}").words([0], N)[0, 0].sort(stable=True).indices


@functools.cache
def _sets(
    name: str, folder: str, data: str | None, reading: str, subset: int | None, device: str
) -> Mapping[str, Images]:
    """The splits of the files in `folder`, which `data` leads to: views of what was read, but for a sub-sample."""
    (images, classes), test = _read(name, folder, data)
    if reading == "paper":
        found = {"train": (images, classes), "validation": test}
    else:
        found = {
            "train": (images[:-HELD_OUT], classes[:-HELD_OUT]),
            "validation": (images[-HELD_OUT:], classes[-HELD_OUT:]),
        }
    found["test"] = test
    if subset is not None:
        # one name for the two that are one set
        named = {split: "test" if each is test else split for split, each in found.items()}
        which = {split: _drawn(subset, named[split], len(found[split][1]))[: SUBSET[split]] for split in found}
        found = {split: (each[0][which[split]], each[1][which[split]]) for split, each in found.items()}
    return {split: (pixels.to(device), of.to(device)) for split, (pixels, of) in found.items()}


@functools.cache
def _read(name: str, folder: str, data: str | None) -> tuple[Images, Images]:
    """Training and test images, read and checked once in a process: `folder` says which files, `data` how it is named.

    Raises UserError.
    """
    one: DataSet = SETS[name]
    train_images, train_classes, test_images, test_classes = one.read(data).values()
    return (
        (idx(train_images).flatten(1), idx(train_classes)),
        (idx(test_images).flatten(1), idx(test_classes)),
    )


def idx(data: bytes) -> Tensor:
    """The tensor of an IDX file of unsigned bytes (two zeros, 8, the number of axes, 32-bit sizes, then the bytes).

    Raises ValueError where it is none.
    """
    axes = int.from_bytes(data[3:4]) if data[:3] == b"\0\0\x08" else 0
    sizes = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis]) for axis in range(axes)]
    start = 4 + 4 * axes
    if not axes or len(data) != start + torch.Size(sizes).numel():
        raise ValueError("no IDX file of unsigned bytes, or not of the size that its header says")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(sizes)
