"""The contract test for rules of others: what breaks it is named, with the losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tprnn import plugins
from tprnn.errors import UserError
from tprnn.testing import ContractError, check_trainer

SOUND = """
import torch
from tprnn.errors import UserError
from tprnn.trainers.bptt import BPTT


class Mine(BPTT):
    def step(self, state, batch, position):
        return super().step(state, batch, position)
"""
YAML = "# Mine.\nname: mine\nalpha: 0.01\nomega: 0.0\nclip_norm: null\nfreeze: []\nrate_factors: {}\n"
STEP = "        return super().step(state, batch, position)\n"


@pytest.fixture(autouse=True)
def ours_alone() -> Iterator[None]:
    """What a test asks for is forgotten after it."""
    yield
    plugins.ask(anew=True)


def check(folder: Path, step: str, **how: object) -> None:
    (folder / "trainer").mkdir()
    (folder / "trainer" / "mine.yaml").write_text(YAML)
    (folder / "mine.py").write_text(SOUND.replace(STEP, step))
    how = {"tasks": ["adding"], "iterations": 8} | how
    check_trainer("mine", plugin=str(folder / "mine.py"), config_dir=folder, **how)  # type: ignore[arg-type]


def test_a_sound_rule_passes(tmp_path: Path) -> None:
    check(tmp_path, STEP, tasks=["adding", "temporal_order"])


def then(*lines: str) -> str:
    """A step that does these lines after backpropagation's own."""
    own = ["loss = super().step(state, batch, position)", *lines, "return loss"]
    return "".join(f"        {line}\n" for line in own)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (then("loss = loss + state.params['W_hh'].mean()"), "beside others it is not what it is alone: losses part at"),
        (then("w = state.params['W_hh']", "w += 0.01 * w.mean(0)"), r"beside others .* W_hh by up to \d"),
        (then("loss = loss + torch.arange(len(loss))"), "losses part at number 1"),
        (then("state.params['b_h'] += 0.01 * torch.randn(8)"), "is not what it is alone"),
        (
            then("self.seen = getattr(self, 'seen', 0) + 1", "loss = loss + self.seen"),
            "joined by another at iteration 4",
        ),
        (then("state.params['W_hy'] -= 0.01"), r"trainer.freeze=\[W_hy\], yet W_hy has moved by up to 0.08"),
        ("        return torch.zeros(len(self.settings))\n", "no parameter has moved in 8 iterations; losses 0 0 0"),
        (then("state.params['b_h'] /= 0.0"), r"b_h.* not finite after 8 iterations; losses \d"),
    ],
    ids=["mean", "mixed", "place", "noise", "state", "freeze", "still", "nan"],
)
def test_what_breaks_the_contract_is_told_with_the_losses(tmp_path: Path, step: str, says: str) -> None:
    with pytest.raises(ContractError, match=says) as caught:
        check(tmp_path, step)
    assert str(caught.value).startswith("mine on adding (seed ")
    assert "losses" in str(caught.value)


def test_what_no_checkpoint_holds_is_found_by_a_cut(tmp_path: Path) -> None:
    """Here for runs that are alone, which no other check asks for."""
    step = then(
        "self.seen = getattr(self, 'seen', 0) + 1",
        "if int(self.seeds.init[0]) == 0: loss = loss + self.seen",
    )
    with pytest.raises(ContractError, match="cut after 4 and 7 iterations it is not what it is without a cut"):
        check(tmp_path, step)


def test_tasks_that_a_rule_refuses_are_left_out_but_not_all_of_them(tmp_path: Path) -> None:
    refusing = STEP + (
        "\n    @classmethod\n    def check(cls, config):\n"
        "        if config['task']['name'] != 'adding':\n            raise UserError('adding alone')\n"
    )
    check(tmp_path, refusing, tasks=["adding", "temporal_order"])
    with pytest.raises(UserError, match="mine: no task can be trained; temporal_order: adding alone"):
        check_trainer("mine", tasks=["temporal_order"])
