"""What a GPU can do by its data sheet, and the floor of an iteration that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from tprnn.cost.modelled import Shape, terms


@dataclass(frozen=True)
class Card:
    """Numbers of NVIDIA's data sheets (H100, H200, A100 Tensor Core GPU) and white papers (the caches)."""

    title: str
    flops: float
    """FLOP/s in float32, without tensor cores, which would round to fewer bits."""
    bandwidth: float
    """Bytes/s of the device's memory."""
    cache: float
    """Bytes of the level-2 cache."""


# by a part of the name that the driver gives; the longest that fits counts
CARDS = {
    "H200": Card("H200 SXM", 67e12, 4.8e12, 50e6),
    "H200 NVL": Card("H200 NVL", 60e12, 4.8e12, 50e6),
    "H100 80GB HBM3": Card("H100 SXM", 67e12, 3.35e12, 50e6),
    "H100 NVL": Card("H100 NVL", 60e12, 3.9e12, 50e6),
    "H100 PCIe": Card("H100 PCIe", 51e12, 2.0e12, 50e6),
    "A100-SXM4-80GB": Card("A100 SXM 80 GB", 19.5e12, 2.039e12, 40e6),
    "A100 80GB PCIe": Card("A100 PCIe 80 GB", 19.5e12, 1.935e12, 40e6),
    "A100-SXM4-40GB": Card("A100 SXM 40 GB", 19.5e12, 1.555e12, 40e6),
}


def card_of(name: str) -> Card | None:
    """The card with a driver's name such as "NVIDIA H100 80GB HBM3"; None where no data sheet is known."""
    known = max((key for key in CARDS if key in name), key=len, default=None)
    return None if known is None else CARDS[known]


@dataclass(frozen=True)
class Floor:
    """Seconds below which an iteration of a stack cannot come on a card."""

    flops: float
    """Of its products at the card's rate."""
    bytes: float
    """Of its memory at the card's bandwidth: a pass reads its states and writes them, as far as the cache does not
    hold them; an update reads and writes weights and slots."""

    @property
    def seconds(self) -> float:
        """The larger of the two: both may go on at once."""
        return max(self.flops, self.bytes)


def floor_of(shape: Shape, R: int, card: Card) -> Floor:
    """The floor of one iteration of R runs."""
    found = terms(shape, R, card.cache)
    moved = 2.0 * found["memory"] + 2.0 * (1 + shape.slots) * found["parameters"]
    return Floor((found["dependent"] + found["batched"]) / card.flops, moved * shape.bytes / card.bandwidth)
