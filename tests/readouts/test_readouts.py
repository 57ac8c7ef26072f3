"""Read-outs: losses by their formulas, gradients against autograd in float64, samples against their distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, MultivariateNormal, Normal

from tprnn.core.streams import Stream, uniform
from tprnn.members import member_class, own_rules
from tprnn.readouts.base import Answers, Readout
from tprnn.readouts.mixture import Mixture, MixtureSettings

R, S, B, H, D = 2, 3, 5, 4, 3
NAMES = own_rules("readout")


def make(name: str, outputs: int = D) -> Readout:
    member = member_class("readout", name)
    return member(member.Settings(**({"K": 2} if name == "mixture" else {})), outputs)


def targets_of(reader: Readout, rows: int = B) -> Tensor:
    torch.manual_seed(1)
    if reader.targets == "classes":
        return torch.randint(D, (R, S, rows))
    if reader.targets == "bits":
        return torch.randint(2, (R, S, rows, D)).double()
    return torch.randn(R, S, rows, D, dtype=torch.float64)


def log_p(reader: Readout, y: Tensor, targets: Tensor) -> Tensor:
    """log p of each target by torch.distributions, [R, S, B]."""
    if reader.targets == "classes":
        return Categorical(logits=y).log_prob(targets)
    if reader.targets == "bits":
        return Bernoulli(logits=y).log_prob(targets).sum(-1)
    if isinstance(reader, Mixture):
        logits, mu, log_s = y.split(reader.parts, -1)
        widths = log_s.exp().square()[..., None, None] * torch.eye(D, dtype=y.dtype)
        parts = MultivariateNormal(mu.unflatten(-1, (-1, D)), widths)
        return MixtureSameFamily(Categorical(logits=logits), parts).log_prob(targets)
    gaussian = Normal(y, math.sqrt(0.5))
    return gaussian.log_prob(targets).sum(-1) + 0.5 * D * math.log(math.pi)  # exp(-l) has no such factor


@pytest.fixture(params=NAMES)
def reader(request: pytest.FixtureRequest) -> Readout:
    return make(request.param)


def params_of(reader: Readout) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: torch.randn(R, *shape, dtype=torch.float64) for name, shape in reader.shapes(H).items()}


@pytest.mark.parametrize("M", [1, 4])
def test_the_loss_is_that_of_the_mean_probability_and_all_gradients_are_its_own(reader: Readout, M: int) -> None:
    """E = -(1/SB) sum log (1/M) sum_m p(target | row m), by torch.distributions and autograd."""
    params = params_of(reader)
    leaves = {name: w.clone().requires_grad_() for name, w in params.items()}
    torch.manual_seed(3)
    h = torch.randn(R, S + 2, B * M, H, dtype=torch.float64, requires_grad=True)
    targets = targets_of(reader)
    W, b = reader.weights(leaves)
    y = torch.einsum("rsbh,rho->rsbo", h[:, -S:], W) + b[:, None, None]
    rows = log_p(reader, y, targets.repeat_interleave(M, 2)).unflatten(2, (B, M))
    losses = math.log(M) - torch.logsumexp(rows, -1)
    E = losses.mean((1, 2))
    E.sum().backward()

    reading = reader.read(params, h.detach(), targets)
    close(reading.loss, E.detach())
    close(reader.losses(y.detach(), targets), losses.detach())
    assert h.grad is not None
    close(reading.dh, h.grad[:, -S:])
    assert not h.grad[:, :-S].any()
    found = reader.gradients(h.detach(), reading)
    assert list(found) == list(params)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        close(found[name], leaf.grad)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if member_class("readout", name).in_kernel])
def test_the_kernel_computes_the_same(name: str) -> None:
    reader = make(name)
    params = {key: w.float() for key, w in params_of(reader).items()}
    h, targets = torch.randn(R, S + 2, B, H), targets_of(reader)
    targets = targets.float() if targets.is_floating_point() else targets
    by_calls = reader.read(params, h, targets)
    gradients = reader.gradients(h, by_calls)
    reader.compiled = True
    compiled = reader.read(params, h, targets)
    for one, other in zip(vars(compiled).values(), vars(by_calls).values(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(reader.gradients(h, compiled), gradients)


@pytest.mark.parametrize("name", [name for name in NAMES if not member_class("readout", name).in_kernel])
def test_a_read_out_without_a_kernel_runs_beside_a_compiled_recurrence(name: str) -> None:
    reader = make(name)
    params = {key: w.float() for key, w in params_of(reader).items()}
    h, targets = torch.randn(R, S + 2, B, H), targets_of(reader).float()
    plain = reader.gradients(h, reader.read(params, h, targets))
    reader.compiled = True
    torch.testing.assert_close(reader.gradients(h, reader.read(params, h, targets)), plain)


N = 40_000


def drawn(reader: Readout, y: Tensor) -> Tensor:
    """N draws from one output's distribution."""
    u = uniform(Stream([0], "draws").words([0], N * reader.uniforms), torch.float64).view(1, 1, N, reader.uniforms)
    return reader.sample(y.expand(1, 1, N, -1), u)[0, 0]


def test_samples_have_the_distribution_that_is_read(reader: Readout) -> None:
    """Means within four standard errors; classes by their shares."""
    torch.manual_seed(4)
    y = torch.randn(reader.width, dtype=torch.float64)
    found, mean = drawn(reader, y), reader.mean(y.view(1, 1, 1, -1))[0, 0, 0]
    if reader.targets == "classes":
        found = torch.nn.functional.one_hot(found, D).double()
    error = found.std(0) / N**0.5
    assert ((found.mean(0) - mean).abs() < 4 * error + 1e-12).all()


def test_a_mixture_draws_its_parts_as_often_and_as_wide_as_it_says() -> None:
    reader = Mixture(MixtureSettings(K=2), 1)
    # 0.25 at -10 with width 0.5, 0.75 at 10 with width 2
    y = torch.tensor([0.0, math.log(3.0), -10.0, 10.0, math.log(0.5), math.log(2.0)], dtype=torch.float64)
    found = drawn(reader, y)[:, 0]
    low, high = found[found < 0], found[found > 0]
    assert len(low) / N == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / N) ** 0.5)
    assert low.std().item() == pytest.approx(0.5, rel=0.03)
    assert high.std().item() == pytest.approx(2.0, rel=0.03)
    assert high.mean().item() == pytest.approx(10.0, abs=4 * 2.0 / len(high) ** 0.5)


def test_a_mixture_by_hand() -> None:
    """One part with s = 1 around 0, target 2: l = 2 + log(2 pi)/2, z = 2, dl/dmu = -2, dl/dlog s = 1 - 4."""
    reader = Mixture(MixtureSettings(K=1), 1)
    l, dl = reader.each(torch.zeros(1, 1, 1, 3, dtype=torch.float64), torch.full((1, 1, 1, 1), 2.0).double())
    assert l.item() == pytest.approx(2.0 + 0.5 * math.log(2.0 * math.pi))
    assert dl.flatten().tolist() == pytest.approx([0.0, -2.0, -3.0])


def test_bits_by_hand() -> None:
    """y = 0: each bit costs log 2, and pulls by 1/2; a sure and right one costs nothing, however large y is."""
    reader = make("bernoulli", 2)
    y = torch.tensor([0.0, 1000.0], dtype=torch.float64).view(1, 1, 1, 2)
    l, dl = reader.each(y, torch.tensor([1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2))
    assert l.item() == pytest.approx(math.log(2.0))
    assert dl.flatten().tolist() == pytest.approx([-0.5, 0.0])
    wrong = reader.each(-y, torch.ones(1, 1, 1, 2, dtype=torch.float64))[0]
    assert wrong.item() == pytest.approx(math.log(2.0) + 1000.0)


def test_answers_over_rows_are_means_of_what_is_read() -> None:
    """Two rows of one sequence that are sure of different classes: both are as likely; the loss is log 2."""
    reader: Any = make("softmax", 2)
    y = torch.tensor([[50.0, -50.0], [-50.0, 50.0]], dtype=torch.float64).view(1, 1, 2, 2)
    answers = Answers(y, torch.zeros(1, 1, 1, dtype=torch.int64), reader)
    assert answers.expected.flatten().tolist() == pytest.approx([0.5, 0.5])
    assert answers.losses.item() == pytest.approx(math.log(2.0))
    third = torch.cat([y, y[:, :, :1]], 2)
    assert Answers(third, answers.targets, reader).classes.item() == 0
