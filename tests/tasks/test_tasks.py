"""Task generators against their definitions: exact ranges, and statistics with their standard errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TASKS, make_spec
from torch import Tensor

from tprnn.config import member_class
from tprnn.core.streams import Stream
from tprnn.errors import UserError
from tprnn.models.base import readout_of
from tprnn.readouts.base import Answers
from tprnn.tasks.base import Batch, Task

N = 20_000


def right(task: Any, y: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Which sequences raw outputs answer rightly."""
    return task.measure(Answers(y, targets, readout_of(None, task)))


def sample(name: str, T: int, reading: str = "released", n: int = N, runs: int = 1) -> tuple[Task, Batch]:
    asked: dict[str, Any] = {"task.T": T} if reading == "released" else {"task.T": T, "task.reading": reading}
    spec = make_spec(asked, task=name)
    task = member_class("task", spec.config["task"]["rule"])(spec.settings("task"))
    words = Stream(range(runs), "test").words([0], n * task.words)[0].view(runs, n, task.words)
    return task, task.sample(words)


def equally_likely(values: Tensor, choices: int) -> None:
    """Each of 0 .. choices - 1 within 4.5 standard errors of its share."""
    n, p = values.numel(), 1 / choices
    shares = torch.bincount(values.flatten(), minlength=choices).double() / n
    assert len(shares) == choices
    assert ((shares - p).abs() <= 4.5 * (p * (1 - p) / n) ** 0.5).all()


# the positions each definition allows, by hand, 0-based: [first, last] of each marked symbol
PLACES = {
    ("temporal_order", 50, "released"): [(5, 9), (25, 29)],
    ("temporal_order", 50, "paper"): [(4, 9), (19, 24)],
    ("temporal_order", 10, "released"): [(1, 1), (5, 5)],
    ("temporal_order", 10, "paper"): [(0, 1), (3, 4)],
    ("temporal_order", 25, "paper"): [(2, 4), (9, 11)],  # 1-based [2.5, 5] and [10, 12.5]
    ("temporal_order_3bit", 50, "released"): [(5, 9), (15, 19), (30, 34)],
    ("temporal_order_3bit", 50, "paper"): [(4, 9), (14, 19), (29, 34)],
    ("temporal_order_3bit", 10, "released"): [(1, 1), (3, 3), (6, 6)],
}


@pytest.mark.parametrize(("name", "T", "reading"), list(PLACES))
def test_temporal_order_places_its_symbols_as_defined(name: str, T: int, reading: str) -> None:
    task, batch = sample(name, T, reading)
    tokens = batch.inputs[0]  # [T, B]
    assert tokens.shape[0] == T
    marked = tokens >= 4
    places = PLACES[name, T, reading]
    assert (marked.sum(0) == len(places)).all()
    where = marked.T.nonzero()[:, 1].view(N, len(places))
    answer = torch.zeros(N, dtype=torch.int64)
    for i, (first, last) in enumerate(places):
        assert where[:, i].min() == first
        assert where[:, i].max() == last
        equally_likely(where[:, i] - first, last - first + 1)
        answer = 2 * answer + (tokens.gather(0, where[:, i][None])[0] - 4)
    assert torch.equal(batch.targets[0, 0], answer)
    equally_likely(answer, task.outputs)
    equally_likely(tokens[~marked], 4)


@pytest.mark.parametrize("reading", ["released", "paper"])
def test_random_permutation_hides_its_answer_in_the_first_symbol(reading: str) -> None:
    _, batch = sample("random_permutation", 30, reading)
    tokens = batch.inputs[0]
    assert tokens.shape[0] == (30 if reading == "released" else 29)
    assert torch.equal(batch.targets[0, 0], tokens[0])
    equally_likely(tokens[0], 2)
    assert tokens[1:].min() == 2
    assert tokens[1:].max() == 99
    equally_likely(tokens[1:] - 2, 98)


@pytest.mark.parametrize(("T", "reading"), [(40, "released"), (40, "paper"), (10, "released"), (10, "paper")])
def test_adding_marks_two_values_and_asks_for_their_mean(T: int, reading: str) -> None:
    _, batch = sample("adding", T, reading, n=200, runs=400)
    values, markers = batch.inputs.unbind(-1)  # [R, T', B]
    assert (markers.sum(1) == 2).all()
    expected = (values * markers).sum(1) / 2
    assert torch.allclose(batch.targets[:, 0, :, 0], expected)
    start = torch.zeros(400, 200, dtype=torch.int64) if batch.start is None else batch.start
    length = batch.T - start
    assert (start == start[:, :1]).all()  # one length for a whole batch
    if reading == "released":
        assert length.min() == T
        assert length.max() == T + T // 10 - 1
        equally_likely(length[:, 0] - T, T // 10)
        first_end, second_start, second_end = length // 10, length // 10, length // 10 + 4 * length // 10
    else:
        assert (length == T).all()
        first_end, second_start, second_end = length * 0 + T // 10, length * 0 + T // 10, length * 0 + T // 2
    where = markers.mT.nonzero()[:, 2].view(400, 200, 2) - start[..., None]
    assert (where[..., 0] >= 0).all()
    assert (where[..., 0] < first_end).all()
    assert (where[..., 1] >= second_start).all()
    assert (where[..., 1] < second_end).all()
    longest = length == length.max()
    assert where[..., 0][longest].max() == (first_end[longest].max() - 1)
    assert where[..., 1][longest].max() == (second_end[longest].max() - 1)
    n = values.numel()
    assert abs(values.mean().item() - 0.5) < 4.5 * (1 / 12 / n) ** 0.5
    assert 0 <= values.min() < values.max() < 1


def test_adding_judges_by_its_reading() -> None:
    y = torch.tensor([0.5, 0.53, 0.55, 0.69, 0.71]).view(1, 1, 5, 1)
    targets = torch.full((1, 1, 5, 1), 0.5)
    released, _ = sample("adding", 10, "released", n=1)
    paper, _ = sample("adding", 10, "paper", n=1)
    assert right(released, y, targets)[0].tolist() == [True, True, True, True, False]  # squared error <= 0.04
    assert right(paper, y, targets)[0].tolist() == [True, True, False, False, False]  # error < 0.04


@pytest.mark.parametrize(("reading", "chance"), [("released", 0.64), ("paper", 0.1536)])
def test_the_constant_answer_of_adding_is_right_that_often(reading: str, chance: float) -> None:
    task, batch = sample("adding", 20, reading)
    half = torch.full_like(batch.targets, 0.5)
    assert right(task, half, batch.targets).double().mean().item() == pytest.approx(chance, abs=4 * (0.25 / N) ** 0.5)


# inputs and answers by hand: symbols as a, b, ...; blank _, recall mark *
EXAMPLES = [
    ("copy_memory", {"T": 3, "symbols": 3, "elements": 3}, [0, 2, 1], "acb__*___", "______acb"),
    ("copy_memory", {"T": 1, "symbols": 3, "elements": 2}, [2, 2], "cc*__", "___cc"),
    ("sequence_expansion", {"T": 6, "symbols": 3}, [0, 2, 1], "acb___", "aaccbb"),
    ("sequence_expansion", {"T": 5, "symbols": 3}, [0, 2, 1], "acb__", "aaccb"),
]


@pytest.mark.parametrize(("name", "settings", "drawn", "given", "answer"), EXAMPLES)
def test_symbols_come_back_as_in_the_examples(
    name: str, settings: dict[str, int], drawn: list[int], given: str, answer: str
) -> None:
    spec = make_spec({f"task.{key}": value for key, value in settings.items()}, task=name)
    task = member_class("task", name)(spec.settings("task"))
    words = torch.tensor(drawn).view(1, 1, -1) * 2**32 // 3 + 1  # the words that become these symbols
    batch = task.sample(words)
    codes = dict(zip("abc_*", range(5), strict=True))
    assert batch.inputs[0, :, 0].tolist() == [codes[c] for c in given]
    assert batch.targets[0, :, 0].tolist() == [codes[c] for c in answer]


@pytest.mark.parametrize("T", [1, 5, 25])
def test_copy_memory_asks_for_ten_symbols_after_the_mark(T: int) -> None:
    task, batch = sample("copy_memory", T, n=4000)
    tokens, targets = batch.inputs[0], batch.targets[0]
    assert tokens.shape[0] == targets.shape[0] == T + 20
    assert (task.inputs, task.outputs) == (10, 9)
    equally_likely(tokens[:10], 8)
    for place in range(10):
        equally_likely(tokens[place], 8)
    assert (tokens[10 : T + 9] == 8).all()
    assert (tokens[T + 9] == 9).all()  # the (T + 10)-th
    assert (tokens[T + 10 :] == 8).all()
    assert (targets[: T + 10] == 8).all()
    assert torch.equal(targets[T + 10 :], tokens[:10])


@pytest.mark.parametrize("T", [2, 7, 10])
def test_sequence_expansion_asks_for_each_symbol_twice(T: int) -> None:
    task, batch = sample("sequence_expansion", T, n=4000)
    tokens, targets = batch.inputs[0], batch.targets[0]
    half = (T + 1) // 2
    assert tokens.shape[0] == targets.shape[0] == T
    assert (task.inputs, task.outputs) == (5, 4)
    for place in range(half):
        equally_likely(tokens[place], 4)
    assert (tokens[half:] == 4).all()
    assert all(torch.equal(targets[t], tokens[t // 2]) for t in range(T))


@pytest.mark.parametrize("name", ["copy_memory", "sequence_expansion"])
def test_with_a_class_for_each_code_sequences_are_the_same_and_one_class_never_occurs(name: str) -> None:
    plain, batch = sample(name, 10, n=50)
    spec = make_spec({"task.T": 10, "task.classes": "codes"}, task=name)
    task = member_class("task", name)(spec.settings("task"))
    assert (task.inputs, task.outputs) == (plain.inputs, plain.inputs)
    assert plain.outputs == task.outputs - 1
    assert batch.targets.max() == task.outputs - 2
    words = torch.randint(2**32, (1, 50, task.words))
    found, expected = task.sample(words), plain.sample(words)
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.targets, expected.targets)
    assert (
        make_spec({"task.T": 10, "task.classes": "answers"}, task=name).signature
        == make_spec({"task.T": 10}, task=name).signature
    )


@pytest.mark.parametrize("name", ["copy_memory", "sequence_expansion"])
def test_one_wrong_step_makes_a_sequence_wrong(name: str) -> None:
    task, batch = sample(name, 10, n=5)
    y = torch.nn.functional.one_hot(batch.targets, task.outputs).double()
    y[0, 7, 2] = 0.0
    y[0, 7, 2, (batch.targets[0, 7, 2] + 1) % task.outputs] = 1.0
    assert right(task, y, batch.targets)[0].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(("name", "T"), [("copy_memory", 5), ("sequence_expansion", 10), ("sequence_expansion", 7)])
def test_the_baseline_is_the_loss_of_the_best_guess_without_memory(name: str, T: int) -> None:
    """At each step the best distribution that knows the step and its input alone: shares counted over 20,000."""
    task, batch = sample(name, T)
    tokens, targets = batch.inputs[0], batch.targets[0]
    loss = 0.0
    for x, y in zip(tokens, targets, strict=True):
        counts = torch.zeros(task.inputs, task.outputs, dtype=torch.float64)
        counts.index_put_((x, y), torch.ones(N, dtype=torch.float64), accumulate=True)
        shares = counts / counts.sum(1, keepdim=True)
        loss -= (counts * shares.log()).nansum().item() / N
    config = make_spec({"task.T": T}, task=name).config["task"]
    # counted shares fit their own sample: too low by (classes - 1) per input / (2 N) a step, here below 3e-4
    assert loss / len(tokens) == pytest.approx(task.baseline(config), abs=1e-3)


def test_the_baselines_of_copy_memory_are_the_papers() -> None:
    printed = {5: 0.8318, 10: 0.6931, 15: 0.5941, 20: 0.5199, 25: 0.4621}  # dai2021, table 1
    task = member_class("task", "copy_memory")
    for T, value in printed.items():
        assert task.baseline(make_spec({"task.T": T}, task="copy_memory").config["task"]) == pytest.approx(
            value, abs=5e-5
        )


CHANCE = [
    ("adding", {"reading": "released"}),
    ("adding", {"reading": "paper"}),
    ("temporal_order", {}),
    ("temporal_order_3bit", {}),
    ("random_permutation", {}),
    ("copy_memory", {"symbols": 3, "elements": 2}),
    ("sequence_expansion", {"T": 5, "symbols": 2}),
]


@pytest.mark.parametrize(("name", "settings"), CHANCE)
def test_chance_is_the_accuracy_of_the_best_constant_answer(name: str, settings: dict[str, Any]) -> None:
    spec = make_spec({f"task.{key}": value for key, value in settings.items()}, task=name)
    task = member_class("task", name)(spec.settings("task"))
    targets = task.sample(Stream([0], "train").words([0], 20_000 * task.words).view(1, 20_000, -1)).targets
    if task.readout == "linear":
        answer = torch.full_like(targets, 0.5)
    else:
        rows, counts = torch.unique(targets[0].T, dim=0, return_counts=True)
        best = rows[counts.argmax()]  # [S]
        answer = torch.nn.functional.one_hot(best, task.outputs)[None, :, None].expand(1, -1, 20_000, -1)
    found = right(task, answer, targets).double().mean().item()
    expected = task.chance(spec.config["task"])
    assert abs(found - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5


def test_a_task_without_a_baseline_says_none() -> None:
    config = make_spec({"task.T": 10}, task="adding").config["task"]
    assert member_class("task", "adding").baseline(config) is None


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_the_same_however_it_is_drawn(name: str) -> None:
    spec = make_spec({"task.T": 20}, task=name)
    from tprnn.engine.ensemble import Ensemble

    many = Ensemble([spec.replace({"seed": seed}) for seed in (4, 5, 6)])
    one = Ensemble([spec.replace({"seed": 5})])
    ahead = many.batches(torch.tensor([3, 90, 0]), 5)
    for step in range(5):  # five at once, of runs that stand at different iterations
        ours, alone = ahead[step], one.batch(90 + step)
        assert torch.equal(ours.inputs[1], alone.inputs[0])
        assert torch.equal(ours.targets[1], alone.targets[0])
        assert not torch.equal(ours.inputs[0], ours.inputs[1])


@pytest.mark.parametrize("name", TASKS)
def test_too_short_sequences_are_refused_by_name(name: str) -> None:
    short = member_class("task", name).shortest - 1
    with pytest.raises(UserError, match=rf"task\.T: {name} needs at least {short + 1} steps, got {short}"):
        make_spec({"task.T": short}, task=name)


@pytest.mark.parametrize("name", TASKS)
def test_contract_of_a_task(name: str) -> None:
    task, batch = sample(name, 23, n=7, runs=3)
    assert (batch.inputs.shape[0], batch.inputs.shape[2]) == (3, 7)
    assert (batch.targets.shape[0], batch.targets.shape[2]) == (3, 7)
    kinds: Any = {"softmax": torch.int64, "linear": torch.float64}
    assert batch.targets.dtype == kinds[task.readout]
    if batch.tokens:
        assert batch.inputs.dtype == torch.int64
        assert 0 <= batch.inputs.min() <= batch.inputs.max() < task.inputs
    else:
        assert batch.inputs.shape[-1] == task.inputs
    if task.readout == "softmax":  # the right answers are right, all others wrong
        y = torch.nn.functional.one_hot(batch.targets, task.outputs).double()
        assert right(task, y, batch.targets).all()
        assert not right(task, -y, batch.targets).any()
    else:
        assert right(task, batch.targets, batch.targets).all()
        assert not right(task, batch.targets + 1, batch.targets).any()
