"""The rule keeps the contract of a learning rule, and moves every weight by the same amount."""

import torch

from tprnn.compose import compose
from tprnn.engine.ensemble import Ensemble
from tprnn.testing import check_trainer


def test_contract() -> None:
    check_trainer("manhattan")


def test_every_weight_moves_by_alpha() -> None:
    ensemble = Ensemble([compose(["task=adding", "trainer=manhattan", "trainer.alpha=0.5", "optimizer=sgd"])])
    before = ensemble.state.params["W_hh"].clone()
    ensemble.advance()
    moved = (ensemble.state.params["W_hh"] - before).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.5))
