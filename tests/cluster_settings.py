"""What the tests of cluster jobs share."""

from __future__ import annotations

from typing import Any

import yaml
from conftest import CONF

from tprnn.sweep.executors.jobs import JobSettings, read_settings

DEFAULTS: dict[str, Any] = yaml.safe_load((CONF / "hydra" / "launcher" / "stack.yaml").read_text())


def settings(**changes: Any) -> JobSettings:
    """The launcher's own settings but for `changes`."""
    return read_settings(DEFAULTS | {"executor": "local"} | changes)
