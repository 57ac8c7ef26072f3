"""Override lines: reading them, writing them, and saying in one line what is wrong with one."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tprnn.config import MEMBER_KINDS
from tprnn.errors import UserError, nearest
from tprnn.listing import conf_folder

# What Hydra, OmegaConf and (for odd group values) plain Python raise for override lines that make no config.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)


def is_hydra_line(line: str) -> bool:
    """Whether an override is about Hydra itself (hydra.verbose=true, hydra/launcher=basic)."""
    return line.lstrip("+~").startswith(("hydra.", "hydra/"))


def one_line(error: BaseException) -> str:
    """What Hydra or OmegaConf says, without its pointers to web pages and search paths."""
    parts = []
    for e in (error, error.__cause__):
        if isinstance(e, COMPOSITION_ERRORS):
            text = re.split(r"\n\s*(?:See http|Search path|Config search path|full_key|\^)", str(e))[0]
            parts.append(" ".join(text.split()))
    return ": ".join(part for part in parts if part) or type(error).__name__


def open_keys(overrides: Iterable[str]) -> list[str]:
    """Override lines in which free mappings (YAML value `{}`, as trainer.rate_factors) may get new keys.

    Hydra closes every mapping: without the added `++` it would refuse ``trainer.rate_factors={W_hh: 0.01}``.
    """
    lines = []
    for line in overrides:
        key = line.partition("=")[0]
        free = any(key == name or key.startswith(f"{name}.") for name in free_mappings())
        lines.append(f"++{line}" if free else line)
    return lines


@functools.cache
def free_mappings() -> frozenset[str]:
    """Dotted keys of the settings that are free mappings: written `{}` in a member's YAML, or in the launcher's."""
    found = {"hydra.launcher.sbatch"}
    for kind in MEMBER_KINDS:
        for path in sorted((conf_folder() / kind).glob("*.yaml")):
            for name in re.findall(r"^(\w+): *\{\} *$", path.read_text(encoding="utf-8"), re.MULTILINE):
                found.add(f"{kind}.{name}")
    return frozenset(found)


def as_override(value: Any) -> str:
    """A YAML value as the right side of an override line that Hydra reads as the same value."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(entry)}" for key, entry in value.items()) + "}"
    return "null" if value is None else str(value)


def own_keys(words: Iterable[str], prefix: str, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """A command's own settings `prefix.NAME=TEXT` by name, and the other words. Raises UserError for unknown names."""
    own: dict[str, str] = {}
    others = []
    for word in words:
        key, _, text = word.partition("=")
        if not key.startswith(f"{prefix}."):
            others.append(word)
            continue
        name = key.removeprefix(f"{prefix}.")
        if name not in names:
            raise UserError(f"unknown key '{key}'; {nearest(key, [f'{prefix}.{entry}' for entry in names])}")
        own[name] = text
    return own, others


def choice(key: str, text: str, choices: Sequence[str]) -> str:
    """`text`, one of `choices`. Raises UserError."""
    if text not in choices:
        raise UserError(f"{key}: '{text}' is not a choice; {nearest(text, choices)}")
    return text
