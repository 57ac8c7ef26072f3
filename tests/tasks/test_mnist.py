"""Sequential MNIST: on small files of its form all that can be counted, on the published ones what is known of them."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import image_files
import pytest
import torch
from conftest import make_spec
from image_files import HELD_OUT, TEST, TRAIN, Small, idx_bytes

from tprnn import cli
from tprnn.config import RunSpec
from tprnn.core.streams import Stream
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.tasks.base import Batch, Task
from tprnn.tasks.mnist_sequential import MnistSequential, idx

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data"
on_published = pytest.mark.skipif(
    not (PUBLISHED / "mnist").is_dir(), reason=f"the published MNIST files are not in {PUBLISHED}"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Small:
    """A small data set in tmp_path / "data"."""
    small = image_files.install(monkeypatch)
    small.write(tmp_path / "data")
    return small


@pytest.fixture
def opened(small: Small, tmp_path: Path) -> Any:
    """The task with some settings, by what is done with them: `opened(order="shuffled")`."""
    return functools.partial(open_task, tmp_path / "data", 10)


def spec_of(data: Path, validation: int, **settings: Any) -> RunSpec:
    changes = {f"task.{key}": value for key, value in settings.items()}
    changes |= {"data": str(data), "train.validation_size": validation}
    return make_spec(changes, task="mnist_sequential")


def open_task(data: Path, validation: int, **settings: Any) -> Task:
    spec = spec_of(data, validation, **settings)
    return MnistSequential.open(spec.settings("task"), spec.execution["data"])


def whole(task: Task, split: str, N: int, epoch: int = 0, seed: int = 0) -> Batch:
    """All N images of a split in the order of an epoch."""
    return task.batch(Stream([seed], split), [epoch], N)


def numbers(batch: Batch) -> torch.Tensor:
    """Which images a batch of the small data set has, by their first pixels, [R, B]."""
    return (batch.inputs.flatten(3)[:, 0, :, 0] * 255).round().long()


def test_an_idx_file_is_read_as_written() -> None:
    values = torch.randint(256, (3, 4, 5), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert torch.equal(idx(idx_bytes(values)), values)
    for wrong in (b"", b"\0\0\x08", idx_bytes(values)[:-1], idx_bytes(values) + b"0", b"\0\0\x0d" + bytes(9)):
        with pytest.raises(ValueError, match="no IDX file"):
            idx(wrong)


def test_a_pixel_is_a_step_and_a_row_is_one_with_rows(small: Small, opened: Any) -> None:
    one = whole(opened(), "train", TRAIN)
    assert one.inputs.shape == (1, 784, TRAIN, 1)
    assert one.targets.shape == (1, 1, TRAIN)
    for n in (0, 7, TRAIN - 1):  # scan-line order, bytes / 255
        expected = torch.tensor([byte / 255 for row in small.images[n].tolist() for byte in row], dtype=torch.float64)
        assert torch.equal(one.inputs[0, :, n, 0], expected)
        assert one.targets[0, 0, n] == small.classes[n]
    rows = whole(opened(rows=True), "train", TRAIN)
    assert rows.inputs.shape == (1, 28, TRAIN, 28)
    assert torch.equal(rows.inputs[0, 3, 7], small.images[7, 3].double() / 255)


def test_file_order_is_that_of_the_file_in_every_epoch_and_for_every_seed(opened: Any) -> None:
    for epoch, seed in ((0, 0), (1, 0), (2, 5)):
        assert numbers(whole(opened(), "train", TRAIN, epoch, seed))[0].tolist() == list(range(TRAIN))


def test_a_batch_goes_on_into_the_next_epoch(opened: Any) -> None:
    found = opened().batch(Stream([0], "train"), [1], 40)
    assert numbers(found)[0].tolist() == [*range(40, TRAIN), *range(20)]


def test_shuffled_epochs_have_every_image_once_each_in_an_order_of_its_own(opened: Any) -> None:
    task = opened(order="shuffled")
    orders = [numbers(whole(task, "train", TRAIN, *at))[0].tolist() for at in ((0, 0), (1, 0), (0, 1))]
    for order in orders:
        assert sorted(order) == list(range(TRAIN))
        assert order != list(range(TRAIN))
    assert len(set(map(tuple, orders))) == 3
    assert numbers(whole(opened(order="shuffled"), "train", TRAIN))[0].tolist() == orders[0]
    assert numbers(whole(task, "validation", TEST))[0].tolist() == list(range(TRAIN, TRAIN + TEST))


def test_pixels_are_permuted_alike_for_all_images_and_seeds_of_runs(small: Small, opened: Any) -> None:
    plain, task = whole(opened(), "train", TRAIN).inputs[0, ..., 0], opened(permuted=True)
    found = whole(task, "train", TRAIN).inputs[0, ..., 0]  # [T, B]
    assert not torch.equal(found, plain)
    order = torch.cdist(found, plain).argmin(1).tolist()  # no two pixels are alike in all images
    assert sorted(order) == list(range(784))
    assert torch.equal(plain[order], found)
    assert torch.equal(whole(task, "train", TRAIN, seed=3).inputs[0, ..., 0], found)
    first = small.images[TRAIN].flatten().double()[order] / 255
    assert torch.equal(whole(task, "test", TEST).inputs[0, :, 0, 0], first)
    other = whole(opened(permuted=True, permutation_seed=1), "train", TRAIN).inputs[0, ..., 0]
    assert not torch.equal(other, found)
    rows = whole(opened(permuted=True, rows=True), "train", TRAIN).inputs  # [1, 28, B, 28]
    assert torch.equal(rows[0].transpose(1, 2).flatten(0, 1), found)


def split_numbers(task: Task, **settings: Any) -> dict[str, list[int]]:
    sizes = type(task).sizes(task.settings.__dict__)  # type: ignore[attr-defined]
    return {split: numbers(whole(task, split, N))[0].tolist() for split, N in sizes.items()}


def test_the_paper_validates_on_the_test_images(opened: Any) -> None:
    found = split_numbers(opened())
    assert found["train"] == list(range(TRAIN))
    assert found["validation"] == found["test"] == list(range(TRAIN, TRAIN + TEST))


def test_held_out_are_the_last_training_images(opened: Any) -> None:
    found = split_numbers(opened(reading="held_out"))
    assert found["train"] == list(range(TRAIN - HELD_OUT))
    assert found["validation"] == list(range(TRAIN - HELD_OUT, TRAIN))
    assert found["test"] == list(range(TRAIN, TRAIN + TEST))


@pytest.mark.parametrize("reading", ["paper", "held_out"])
def test_a_sub_sample_is_drawn_once_by_its_seed(small: Small, tmp_path: Path, reading: str) -> None:
    opened = functools.partial(open_task, tmp_path / "data", 5, reading=reading)
    all_, found = split_numbers(opened()), split_numbers(opened(subset=0))
    assert {split: len(each) for split, each in found.items()} == {"train": 12, "validation": 5, "test": 5}
    for split, each in found.items():
        assert len(set(each)) == len(each)
        assert set(each) < set(all_[split])
    assert (found["validation"] == found["test"]) == (reading == "paper")
    assert split_numbers(opened(subset=0)) == found
    other = split_numbers(opened(subset=1))
    assert all(other[split] != each for split, each in found.items())
    of_seed = numbers(whole(opened(subset=0), "train", 12, seed=4))
    assert of_seed[0].tolist() == found["train"]


def test_a_validation_set_larger_than_the_one_there_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected at most the 5 sequences that task=mnist_sequential has"):
        spec_of(tmp_path / "data", 10, subset=0)


@pytest.mark.parametrize("order", ["file", "shuffled"])
def test_a_batch_is_the_same_however_it_is_drawn(small: Small, tmp_path: Path, order: str) -> None:
    spec = spec_of(tmp_path / "data", 10, order=order)
    many = Ensemble([spec.replace({"seed": seed}) for seed in (4, 5, 6)])
    one = Ensemble([spec.replace({"seed": 5})])
    ahead = many.batches(torch.tensor([3, 90, 0]), 5)
    for step in range(5):
        ours, alone = ahead[step], one.batch(90 + step)
        assert torch.equal(ours.inputs[1], alone.inputs[0])
        assert torch.equal(ours.targets[1], alone.targets[0])


def test_files_are_read_once_in_a_process(small: Small, opened: Any, tmp_path: Path) -> None:
    first = opened()
    for path in (tmp_path / "data" / "mnist").iterdir():
        path.unlink()
    assert torch.equal(whole(opened(), "train", TRAIN).inputs, whole(first, "train", TRAIN).inputs)


LINE = ["train", "task=mnist_sequential", "trainer=bptt", "train.validation_size=10", "quiet=true", "workers=1"]


def test_missing_files_are_one_line_before_anything_is_written(
    small: Small, tmp_path: Path, into: str, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for many in ([], ["-m", "seed=0,1"]):
        assert cli.main([*LINE, *many, into, f"data={tmp_path / 'nowhere'}"]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "no train-images-idx3-ubyte.gz" in line
        assert f"tprnn data mnist --from DIR data={tmp_path / 'nowhere'}" in line
        assert not Path(outputs).exists()


def test_composing_needs_no_files(tmp_path: Path) -> None:
    assert cli.main([*LINE, "--cfg", "job", f"data={tmp_path}"]) == 0


def test_where_files_lie_is_no_part_of_a_run(tmp_path: Path) -> None:
    assert spec_of(tmp_path / "a", 10).signature == spec_of(tmp_path / "b", 10).signature


def test_runs_go_on_and_are_evaluated(
    small: Small, tmp_path: Path, into: str, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*LINE, "task.rows=true", "model.H=5", "train.check_every=10", "train.batch_size=7", into]
    data = f"data={tmp_path / 'data'}"
    for iterations in (20, 40, 40):
        assert cli.main([*line, data, f"train.max_iterations={iterations}"]) == 0
    (folder,) = (Path(outputs) / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["iterations"]) == ("not_solved", 40)
    assert cli.main(["evaluate", str(folder)]) == 0
    assert re.search(rf"\| mnist_sequential +\| .* \| +{TEST} +\|", capsys.readouterr().out)


# ---- the published files


@functools.cache
def published(**settings: Any) -> Task:
    return open_task(PUBLISHED, 1000, **settings)


@on_published
def test_published_classes_and_pixels_are_the_known_ones() -> None:
    task = published(order="file")
    train, test = whole(task, "train", 60_000).targets, whole(task, "test", 10_000).targets
    assert train[0, 0, :10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test[0, 0, :10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(train.flatten()).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert torch.bincount(test.flatten()).tolist() == counts
    chance = MnistSequential.chance({"data_set": "mnist"})
    assert chance == max(counts) / 10_000
    images = whole(task, "train", 60_000).inputs
    assert images.shape == (1, 784, 60_000, 1)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert images.mean().item() == pytest.approx(0.13066, abs=1e-5)
    assert images.std().item() == pytest.approx(0.30811, abs=1e-5)


def prints(batch: Batch) -> torch.Tensor:
    """A number for each image that no other is likely to have, [B]."""
    factors = torch.randint(2**40, (784,), generator=torch.Generator().manual_seed(0))
    return ((batch.inputs[0, ..., 0] * 255).round().long() * factors[:, None]).sum(0)


@on_published
def test_an_epoch_of_the_published_images_has_every_one_once() -> None:
    expected = prints(whole(published(order="file"), "train", 60_000))
    assert len(expected.unique()) > 59_000
    task, stream = published(order="shuffled"), Stream([1], "train")
    found = torch.cat([prints(task.batch(stream, [place], 480)) for place in range(125)])
    assert not torch.equal(found, expected)
    assert torch.equal(found.sort().values, expected.sort().values)
    sample = prints(whole(published(order="shuffled", subset=3), "train", 10_000))
    assert len(sample.unique()) > 9_900
    assert torch.isin(sample, expected).all()


@on_published
def test_backprop_learns_rows_of_the_published_images(outputs: str) -> None:
    from tprnn.sweep.run import run_all

    changes = {"task.rows": True, "task.order": "shuffled", "train.validation_size": 1000, "train.max_iterations": 300}
    changes |= {"data": str(PUBLISHED), "model.H": 30, "trainer.alpha": 0.01, "outputs": outputs}
    (outcome,) = run_all([make_spec(changes, task="mnist_sequential")])
    assert outcome.result["accuracy"] > 0.3
