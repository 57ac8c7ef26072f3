"""Local representation alignment (manchev2025): a rule in a folder of its own."""

from tprnn.trainers.lra.rule import LRA as LRA
