"""What is written to a run folder is what is read from it, to the last bit."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch
from conftest import make_spec
from run_files import RESULT, STATE, same_bits, snapshot, some_tensors
from safetensors.torch import load, save

from tprnn.errors import DamagedFile
from tprnn.store import RunFolder

# ---- files written whole


def test_config_is_read_back_as_it_was_written(run: RunFolder) -> None:
    changes = {"trainer.freeze": ["W_hh", "b_h"], "trainer.rate_factors": {"W_xh": 1e-7}, "trainer.alpha": 1e-5}
    spec = make_spec(changes)
    folder = RunFolder(run.path.parent / spec.folder_name)
    folder.open(spec)
    assert folder.read_config() == spec.as_dict()
    assert folder.read_spec().signature == spec.signature
    assert folder.read_spec().execution == spec.execution


def test_config_is_plain_yaml_for_any_reader(run: RunFolder) -> None:
    import yaml

    assert yaml.safe_load((run.path / "config.yaml").read_text()) == run.read_config()


@pytest.mark.parametrize(
    "text", ["{seed: 1, task: {name: x}}", "a: 1\n'b': [1,\n 2]\nc:\n- 1\n- {d: 2}\ne: |\n  f: 1\n"]
)
def test_config_in_another_layout_is_read_as_yaml_reads_it(run: RunFolder, text: str) -> None:
    import yaml

    (run.path / "config.yaml").write_text(text)
    assert run.read_config() == yaml.safe_load(text)


def test_changing_a_read_config_changes_no_other_reader(run: RunFolder) -> None:
    run.read_config()["task"]["T"] = -1
    assert run.read_config()["task"]["T"] != -1


def test_open_keeps_the_config_that_is_there(run: RunFolder) -> None:
    before = snapshot(run.path)
    run.open(run.read_spec())
    assert snapshot(run.path) == before


def test_open_refuses_a_folder_of_another_run(run: RunFolder) -> None:
    before = snapshot(run.path)
    other = make_spec({"seed": 5})
    with pytest.raises(DamagedFile, match=rf"config\.yaml.*{run.read_spec().signature}, not {other.signature}"):
        run.open(other)
    assert snapshot(run.path) == before


def test_checkpoint_comes_back_bit_for_bit(run: RunFolder) -> None:
    assert run.load_checkpoint() is None
    run.save_checkpoint(some_tensors(), STATE)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert same_bits(loaded[0], some_tensors())
    assert loaded[1] == STATE


def test_slices_of_one_stacked_tensor_are_saved_apart(run: RunFolder) -> None:
    stack = torch.randn(4, 3, 2)
    run.save_model({"a": stack[1], "b": stack[2], "again": stack[1]}, {})
    loaded = run.load_model()
    assert loaded is not None
    assert torch.equal(loaded[0]["b"], stack[2])
    assert torch.equal(loaded[0]["again"], stack[1])
    assert os.path.getsize(run.path / "model.safetensors") < 1000


def test_a_model_file_is_plain_safetensors(run: RunFolder) -> None:
    from safetensors.torch import load_file

    run.save_model(some_tensors(), {"task": "adding"})
    assert same_bits(load_file(run.path / "model.safetensors"), some_tensors())


def test_non_finite_numbers_survive_as_texts_that_any_json_reader_takes(run: RunFolder) -> None:
    run.write_result(RESULT | {"loss": math.nan, "accuracy": -math.inf, "nested": {"a": [math.inf, "nan?"]}})
    plain = json.loads((run.path / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (plain["loss"], plain["accuracy"], plain["nested"]["a"]) == ("nan", "-inf", ["inf", "nan?"])
    result = run.result()
    assert result is not None
    assert math.isnan(result["loss"])
    assert (result["accuracy"], result["nested"]["a"]) == (-math.inf, [math.inf, "nan?"])
    run.append_metrics([{"iteration": 100, "loss": math.inf}])
    assert run.read_metrics() == [{"iteration": 100, "loss": math.inf}]
    run.save_checkpoint({}, {"best": math.inf})
    assert run.load_checkpoint() == ({}, {"best": math.inf})


@pytest.mark.parametrize(
    ("status", "counts"),
    [("solved", True), ("not_solved", True), ("diverged", True), ("interrupted", False), ("failed", False)],
)
def test_only_an_ended_run_is_finished(run: RunFolder, status: str, counts: bool) -> None:
    train = make_spec().train
    assert run.finished(train) is None
    run.write_result(RESULT | {"status": status})
    assert run.result() == RESULT | {"status": status}
    assert (run.finished(train) is not None) == counts


def test_a_result_takes_the_traceback_of_an_earlier_try_away(run: RunFolder) -> None:
    run.write_failure("Traceback\n")
    run.write_result(RESULT | {"status": "failed"})
    assert (run.path / "failure.txt").read_text() == "Traceback\n"
    run.write_result(RESULT)
    assert not (run.path / "failure.txt").exists()


def test_clear_keeps_config_and_lock_only(run: RunFolder) -> None:
    with run.lock():
        run.append_metrics([{"iteration": 1}])
        run.save_checkpoint({}, {})
        run.save_model({}, {})
        run.write_failure("")
        run.write_result(RESULT | {"status": "failed"})
        run.clear()
    assert sorted(snapshot(run.path)) == [".lock", "config.yaml"]


# ---- metrics


def test_a_torn_last_line_is_ignored_then_cut_off_by_the_next_append(run: RunFolder) -> None:
    run.append_metrics([{"iteration": 100}, {"iteration": 200}])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 300}')  # whole JSON, but without its line break it may be part of 3000
    assert [row["iteration"] for row in run.read_metrics()] == [100, 200]
    run.append_metrics([{"iteration": 400}])
    assert [row["iteration"] for row in run.read_metrics()] == [100, 200, 400]


def test_rewind_drops_later_rows_and_a_torn_line(run: RunFolder) -> None:
    run.rewind_metrics(0)
    assert run.read_metrics() == []
    run.append_metrics([{"iteration": n, "loss": 0.1 * n} for n in (100, 200, 300)])
    kept = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"itera')
    run.rewind_metrics(250)
    assert (run.path / "metrics.jsonl").read_bytes() == b"".join(kept)
    run.rewind_metrics(0)
    assert run.read_metrics() == []


def header(blob: bytes) -> dict[str, str]:
    """The metadata of a safetensors file."""
    entries: dict[str, str] = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
    return entries


def test_tensors_have_one_entry_of_metadata_for_several_would_stand_in_any_order(run: RunFolder) -> None:
    run.save_checkpoint(some_tensors(), STATE)
    entries = header((run.path / "checkpoint.safetensors").read_bytes())
    assert list(entries) == ["tprnn"]


def test_a_file_with_its_digest_in_an_entry_of_its_own_is_still_read(run: RunFolder) -> None:
    """As files were until now."""
    run.save_checkpoint(some_tensors(), STATE)
    file = run.path / "checkpoint.safetensors"
    blob = file.read_bytes()
    digest, _, text = header(blob)["tprnn"].partition(" ")
    for stored, sound in ((digest, True), ("0" * 64, False)):
        file.write_bytes(save(load(blob), metadata={"sha256": stored, "tprnn": text}))
        if sound:
            tensors, state = run.load_checkpoint() or ({}, {})
            assert state == STATE
            assert same_bits(tensors, some_tensors())
        else:
            with pytest.raises(DamagedFile, match="checksum"):
                run.load_checkpoint()
