"""A setting that comes later makes no new runs of old ones."""

import dataclasses
from pathlib import Path

import pytest
from conftest import make_spec

from tprnn.config import RunSpec
from tprnn.settings import setting
from tprnn.store import RunFolder, Store
from tprnn.trainers.bptt import BPTT


@dataclasses.dataclass(frozen=True)
class Later(BPTT.Settings):  # type: ignore[misc,name-defined]
    """What bptt has, and two settings more."""

    later: str = setting(choices=("as_ever", "otherwise"), before="as_ever")
    other: float | None = setting(above=0.0, per_run=True, before=None)


@pytest.fixture
def old() -> RunSpec:
    """A run of before."""
    return make_spec(trainer="bptt")


@pytest.fixture
def came(old: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the rule has them."""
    monkeypatch.setattr(BPTT, "Settings", Later)


@pytest.mark.usefixtures("came")
def test_a_config_of_before_is_read_as_what_was_done_then(old: RunSpec) -> None:
    now = RunSpec.from_config(old.as_dict())
    assert (now.config["trainer"]["later"], now.config["trainer"]["other"]) == ("as_ever", None)


@pytest.mark.usefixtures("came")
def test_its_names_are_those_of_before(old: RunSpec) -> None:
    now = RunSpec.from_config(old.as_dict())
    for name in ("signature", "family", "stack_key", "old_signature", "folder_name"):
        assert getattr(now, name) == getattr(old, name), name


@pytest.mark.usefixtures("came")
@pytest.mark.parametrize("change", [{"trainer.later": "otherwise"}, {"trainer.other": 0.5}])
def test_another_value_is_another_run(old: RunSpec, change: dict[str, object]) -> None:
    now = RunSpec.from_config(old.as_dict()).replace(change)
    assert (now.signature, now.family) != (old.signature, old.family)
    assert now.replace(dict.fromkeys(change, None) | {"trainer.later": "as_ever"}).signature == old.signature


@pytest.mark.usefixtures("came")
def test_a_stored_run_tells_its_signature_without_its_rule(
    old: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = RunSpec.from_config(old.as_dict())
    folder = Store(tmp_path).folder(now)
    folder.open(now)
    monkeypatch.undo()  # a program that does not know the setting reads it
    assert RunFolder(folder.path).read_spec().signature == old.signature
