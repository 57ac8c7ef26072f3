"""A rule that is not whole yet: the one line says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tprnn import cli, plugins

RULE = """
from dataclasses import dataclass
from tprnn.settings import rate
from tprnn.trainers.base import Trainer, TrainerSettings

@dataclass(frozen=True)
class OwnSettings(TrainerSettings):
    alpha: float = rate()

class Own(Trainer):
    Settings = OwnSettings
    def step(self, state, batch, position):
        return self.model.readout(state.params, self.model.forward(state.params, batch)).loss
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def step", "def stp", "plugin {here}/own.py: Own has no step"),
        ("    Settings = OwnSettings\n", "", "plugin {here}/own.py: Own has no Settings"),
        ("@dataclass(frozen=True)", "", "own.Own: its Settings is no dataclass"),
        ("(TrainerSettings)", "", "own.Own: its Settings must derive from tprnn.trainers.base.TrainerSettings"),
        ("--config-dir conf", "", "no 'own'; {here}/own.py has its class; give its settings in trainer/own.yaml"),
        ("--plugin own.py", "", "no trainer 'own'; choices: "),
        ("--plugin own.py", "", "; a class of your own is named by --plugin"),
    ],
)
def test_what_it_lacks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "task=adding trainer=own --plugin own.py --config-dir conf"
    assert old in RULE + line
    Path("own.py").write_text(RULE.replace(old, new))
    Path("conf/trainer").mkdir(parents=True)
    Path("conf/trainer/own.yaml").write_text("# Mine.\nname: own\nalpha: 0.1\nfreeze: []\nrate_factors: {}\n")
    try:
        assert cli.main(["train", *line.replace(old, new).split()]) == 2
    finally:
        plugins.ask(anew=True)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says.format(here=tmp_path) in err
    assert not Path("outputs").exists()
