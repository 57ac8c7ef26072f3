"""Data sets on disk: which file is taken, what is wrong with one, and what `tprnn data` puts where."""

from __future__ import annotations

import functools
import gzip
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_files
import pytest
from image_files import Small

from tprnn import cli, datasets
from tprnn.datasets import DataSet
from tprnn.errors import UserError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    return image_files.install(monkeypatch)


@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_packed_and_unpacked(small: Small, tmp_path: Path, packed: bool) -> None:
    small.write(tmp_path, packed)
    assert datasets.SETS["mnist"].read(str(tmp_path)) == small.plain


def test_a_file_that_was_packed_again_is_taken(small: Small, tmp_path: Path) -> None:
    place = small.write(tmp_path)
    again = gzip.compress(small.plain[IMAGES], compresslevel=1, mtime=5)
    assert again != small.packed[IMAGES]
    (place / f"{IMAGES}.gz").write_bytes(again)
    assert datasets.SETS["mnist"].read(str(tmp_path)) == small.plain


def test_where_no_hash_of_unpacked_files_is_known_packed_ones_alone_are_taken(small: Small, tmp_path: Path) -> None:
    one = small.described(plain=False)
    small.write(tmp_path / "packed")
    assert one.read(str(tmp_path / "packed")) == small.plain
    small.write(tmp_path / "plain", packed=False)
    with pytest.raises(UserError, match=r"not the published file"):
        one.read(str(tmp_path / "plain"))


def cut(data: bytes) -> bytes:
    return data[:-9]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def in_the_middle(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(40) + data[len(data) // 2 + 40 :]


def packed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(change(gzip.decompress(data)))


# what is done to a .gz file, and what is said of it
FAULTS: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "missing": (lambda data: None, rf"^mnist: no {IMAGES}\.gz and no {IMAGES} in "),
    "cut short": (cut, "damaged: no whole gzip file"),
    "empty": (lambda data: b"", "cut: 0 bytes of 15,696"),
    "other checksum": (lambda data: data[:-8] + bytes(4) + data[-4:], "damaged: no whole gzip file"),
    "broken inside": (in_the_middle, "damaged: no whole gzip file"),
    "only the head": (lambda data: data[:12], "damaged: no whole gzip file"),
    "fewer images": (packed(cut), "cut: 15,687 bytes of 15,696"),
    "more bytes": (packed(lambda data: data + b"0"), r"not the published file|damaged"),
    "unpacked under the packed name": (lambda data: gzip.decompress(data)[:-1], "cut: 15,695 bytes"),
    "another pixel": (packed(flipped), "not the published file"),
    "a page": (lambda data: b"<html>not found</html>" * 2000, "not the published file"),
    "a bomb": (lambda data: gzip.compress(bytes(50_000_000)), "damaged: no whole gzip file|not the published"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_file_and_what_to_do(small: Small, tmp_path: Path, fault: str) -> None:
    change, told = FAULTS[fault]
    path = small.write(tmp_path) / f"{IMAGES}.gz"
    changed = change(path.read_bytes())
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    with pytest.raises(UserError, match=told) as caught:
        datasets.SETS["mnist"].read(str(tmp_path))
    line = str(caught.value)
    assert "\n" not in line
    assert IMAGES in line
    assert line.endswith(f"; tprnn data mnist --from DIR data={tmp_path} puts the published files there")


@pytest.mark.parametrize("packed", [True, False])
def test_swapped_files_are_told_apart(small: Small, tmp_path: Path, packed: bool) -> None:
    place, ending = small.write(tmp_path, packed), ".gz" if packed else ""
    one, other = place / f"{IMAGES}{ending}", place / f"{LABELS}{ending}"
    (a, b) = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    with pytest.raises(UserError, match=f"expected {IMAGES}, holds {LABELS}"):
        datasets.SETS["mnist"].read(str(tmp_path))


def test_a_folder_in_the_place_of_a_file_is_one_line(small: Small, tmp_path: Path) -> None:
    path = small.write(tmp_path) / f"{IMAGES}.gz"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        datasets.SETS["mnist"].read(str(tmp_path))


def test_the_folder_is_that_of_the_call_then_of_the_environment_then_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TPRNN_DATA", "there")
    assert datasets.data_folder("here") == Path("here")
    assert datasets.data_folder(None) == Path("there")
    monkeypatch.setenv("TPRNN_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.data_folder(None).is_absolute()


# ---- tprnn data


def files_of(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


@pytest.mark.parametrize("inner", [True, False])
def test_verified_files_are_copied(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], inner: bool
) -> None:
    place = small.write(tmp_path / "source")
    source = place if inner else place.parent
    line = ["data", "mnist", "--from", str(source), f"data={tmp_path / 'data'}"]
    assert cli.main(line) == 0
    there = tmp_path / "data" / "mnist"
    assert files_of(there) == files_of(place)
    assert capsys.readouterr().out == f"mnist: 4 files, checked, in {there}\n"
    assert cli.main(line) == 0
    assert cli.main(["data", f"data={tmp_path / 'data'}"]) == 0
    assert re.search(r"^mnist +there", capsys.readouterr().out, re.M)


def test_what_is_copied_takes_the_place_of_a_damaged_file_in_the_other_form(small: Small, tmp_path: Path) -> None:
    source = small.write(tmp_path / "source", packed=False)
    there = small.write(tmp_path / "data")
    (there / f"{IMAGES}.gz").write_bytes(b"damaged")
    assert cli.main(["data", "mnist", "--from", str(source), f"data={tmp_path / 'data'}"]) == 0
    assert files_of(there) == files_of(source)


def test_a_copy_onto_itself_keeps_the_files(small: Small, tmp_path: Path) -> None:
    place = small.write(tmp_path)
    before = files_of(place)
    assert cli.main(["data", "mnist", "--from", str(place), f"data={tmp_path}"]) == 0
    assert files_of(place) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["mnits"], "no data set 'mnits'; nearest: mnist"),
        (["mnist", "other"], "unrecognized arguments: other"),
        (["--from", "."], "--from: of which data set?"),
        (["mnist", "--from", "nowhere"], "--from: no folder 'nowhere'"),
        (["mnist", "data=a", "data=b"], "data: expected one folder, got 'a' and 'b'"),
        (["mnist", "data="], "data: expected one folder, got ''"),
    ],
)
def test_bad_lines_are_refused_in_one_line(capsys: pytest.CaptureFixture[str], line: list[str], told: str) -> None:
    assert cli.main(["data", *line]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_of_a_source_with_a_fault_nothing_is_copied(small: Small, tmp_path: Path) -> None:
    source = small.write(tmp_path / "source")
    (source / f"{LABELS}.gz").unlink()
    assert cli.main(["data", "mnist", "--from", str(source), f"data={tmp_path / 'data'}"]) == 2
    assert not (tmp_path / "data").exists()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def served(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server on this machine that has the files of the small data set; its folder."""
    pytest.importorskip("pooch")
    place = small.write(tmp_path / "served")
    handler = functools.partial(_Quiet, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        address = f"http://127.0.0.1:{server.server_port}/"
        one: DataSet = replace(small.described(), addresses=[f"{address}nothing/", address])
        monkeypatch.setitem(datasets.SETS, "mnist", one)
        yield place
        server.shutdown()


def test_files_are_downloaded_from_the_first_address_that_has_them(served: Path, tmp_path: Path) -> None:
    line = ["data", "mnist", f"data={tmp_path / 'data'}"]
    assert cli.main(line) == 0
    assert files_of(tmp_path / "data" / "mnist") == files_of(served)
    for path in served.iterdir():
        path.unlink()
    assert cli.main(line) == 0  # nothing is asked for again


def test_a_download_that_broke_off_goes_on_with_what_is_missing(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, there = ["data", "mnist", f"data={tmp_path / 'data'}"], tmp_path / "data" / "mnist"
    kept = {name: data for name, data in files_of(served).items() if name.startswith("t10k-labels")}
    (served / f"{LABELS}.gz").write_bytes(b"another file")
    assert cli.main(line) == 2
    assert f"cannot download {LABELS}.gz from http" in capsys.readouterr().err
    assert sorted(path.name for path in there.iterdir()) == sorted(
        path.name for path in served.iterdir() if path.name != f"{LABELS}.gz"
    )
    for path in served.iterdir():
        path.unlink()
    for name, data in kept.items():
        (served / name).write_bytes(data)
    assert cli.main(line) == 0
    assert len(files_of(there)) == 4
