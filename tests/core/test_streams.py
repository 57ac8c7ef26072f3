"""Random words: known answers of Philox, distributions with their standard errors, and independence of the stack."""

from __future__ import annotations

import pytest
import torch
from conftest import make_spec
from torch import Tensor

from tprnn.core.init import INITIALISATIONS, orthogonal
from tprnn.core.scans import kernels
from tprnn.core.streams import Stream, below, normal, normals, philox, philox_words, uniform
from tprnn.engine.ensemble import Ensemble


def words(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    return [int(w) for w in philox(*(torch.tensor([v]) for v in (*counter, *key)))]


def test_philox_gives_the_published_known_answers() -> None:
    """philox4x32-10 of the known-answer tests that come with the paper's Random123 library."""
    assert words((0,) * 4, (0,) * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert words(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_compiled_words_are_those_of_tensors() -> None:
    stream, positions = Stream([5, 6, 7], "train"), [0, 1, 2**31, 2**40 + 3]
    for count in (1, 2, 7, 64):
        by_tensors = philox_words(stream.k0, stream.k1, torch.tensor(positions).view(-1, 1, 1), count)
        assert torch.equal(stream.words(positions, count), by_tensors)
        assert torch.equal(stream.words(torch.tensor(positions)[:, None].repeat(1, 3), count), by_tensors)


def test_words_depend_on_seed_name_and_position_only() -> None:
    whole = Stream([5, 6, 7], "train").words([10, 11, 2**33], 13)
    alone = Stream([6], "train")
    assert torch.equal(whole[:, 1], alone.words([10, 11, 2**33], 13)[:, 0])
    assert torch.equal(whole[2, 1], alone.words([2**33], 13)[0, 0])
    assert torch.equal(whole[0, 1, :5], alone.words([10], 5)[0, 0])  # a longer draw begins with the shorter one
    assert not torch.equal(alone.words([10], 13), Stream([6], "validation").words([10], 13))
    assert not torch.equal(alone.words([10], 13), alone.words([11], 13))


def test_uniform_numbers_have_mean_and_variance_of_their_law() -> None:
    n = 200_000
    u = uniform(Stream([0], "test").words([0], n)[0, 0], torch.float64)
    assert 0 <= u.min() < 1e-3
    assert 1 - 1e-3 < u.max() < 1
    assert abs(u.mean().item() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    assert abs(u.var().item() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5  # variance of (u - 1/2)^2 is 1/180


def test_whole_numbers_are_equally_likely() -> None:
    n, k = 120_000, 6
    counts = torch.bincount(below(Stream([1], "test").words([0], n)[0, 0], k), minlength=k).double()
    chi_square = ((counts - n / k) ** 2 / (n / k)).sum().item()
    assert len(counts) == k
    assert chi_square < 20.5  # 99.9 % point of chi-square with 5 degrees of freedom


def test_normal_numbers_have_moments_of_their_law() -> None:
    n = 200_000
    z = normal(Stream([2], "test").words([0], n)[0, 0], torch.float64)
    assert abs(z.mean().item()) < 4 / n**0.5
    assert abs(z.var().item() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z**4).mean().item() - 3) < 4 * (96 / n) ** 0.5  # variance of z^4 is 96
    half = n // 2  # the two outputs of one Box-Muller pair are uncorrelated
    assert abs((z[:half] * z[half:]).mean().item()) < 4 / half**0.5


def test_both_dtypes_see_the_same_draw() -> None:
    w = Stream([3], "test").words([0], 1000)[0, 0]
    assert torch.equal(uniform(w, torch.float32).double(), uniform(w, torch.float64))
    assert torch.equal(normal(w, torch.float64).float(), normal(w, torch.float32))


def test_orthogonal_matrices_have_singular_values_one() -> None:
    for shape in ((20, 20), (6, 20), (20, 4)):
        singular = torch.linalg.svdvals(orthogonal(Stream([0, 1], "init"), *shape, torch.float64))
        assert torch.allclose(singular, torch.ones_like(singular), atol=1e-12)


def test_initialisations_are_what_their_names_say() -> None:
    stream = Stream(range(50), "init")
    n = 50 * 30 * 30
    for name, (recurrent, other) in INITIALISATIONS.items():
        W, V = recurrent(stream, 30, 30, torch.float64), other(stream, 30, 30, torch.float64)
        if name.startswith("identity"):
            assert torch.equal(W, torch.eye(30, dtype=torch.float64).repeat(50, 1, 1))
        if name == "gaussian":
            assert abs(W.std().item() - 0.1) < 4 * 0.1 / (2 * n) ** 0.5
        if name != "orthogonal":
            assert abs(V.std().item() - 0.1) < 4 * 0.1 / (2 * n) ** 0.5
        else:
            assert torch.allclose(V @ V.mT, torch.eye(30, dtype=torch.float64), atol=1e-12)


def test_a_runs_normals_do_not_depend_on_its_neighbours() -> None:
    both, one = (
        normals(Stream([8, 9], "x"), 3, (4, 5), torch.float32),
        normals(Stream([9], "x"), 3, (4, 5), torch.float32),
    )
    assert torch.equal(both[1], one[0])


def test_recurrent_matrices_and_the_others_start_as_named() -> None:
    """orthogonal_whh: W_hh and V_hh orthogonal, the others N(0, 0.1); every parameter from a stream of its own."""
    ensemble = Ensemble([make_spec({"model.init": "orthogonal_whh", "dtype": "float64"}, trainer="tptt")])
    p = ensemble.state.params
    eye = torch.eye(100, dtype=torch.float64)
    assert torch.allclose(p["W_hh"][0] @ p["W_hh"][0].T, eye, atol=1e-12)
    assert torch.allclose(p["V_hh"][0] @ p["V_hh"][0].T, eye, atol=1e-12)
    assert not torch.equal(p["W_hh"], p["V_hh"])
    n = p["W_xh"].numel()
    assert abs(p["W_xh"].std().item() - 0.1) < 4 * 0.1 / (2 * n) ** 0.5
    assert not p["b_h"].any()
    assert not p["c_h"].any()


def box_muller(out: Tensor, words: Tensor) -> None:
    scratch = torch.empty(words.shape[1], dtype=torch.float64)
    kernel = kernels("compiled_streams").box_muller
    for of_run, drawn in zip(out, words, strict=True):
        kernel(*(x.numpy() for x in (*of_run.chunk(2), *drawn.chunk(2), scratch)))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 2047, 2050, 4101, 5003])
def test_normal_numbers_come_of_the_words_of_their_stream(count: int) -> None:
    stream, positions = Stream([3, 4], "noise"), torch.tensor([5, 2**40 + 1])
    words = stream.words(positions[None], count + count % 2)[0]
    expected = normal(words, torch.float64)[:, :count]
    kept = torch.empty(2, count, dtype=torch.float64)
    assert normals(stream, positions, (count,), torch.float64, out=kept) is kept
    torch.testing.assert_close(kept, expected, rtol=1e-11, atol=1e-14)


def test_normal_numbers_are_the_same_compiled() -> None:
    edges = torch.tensor([[0, 2**32 - 1, 1, 2**31, 2**31 - 1, 7, 0, 2**32 - 1, 2**29, 2**29 - 1, 2**30, 3 * 2**30]])
    drawn = Stream([3], "noise").words([0], 40_000)[0]
    for words in (edges, drawn):
        out = torch.empty(words.shape, dtype=torch.float64)
        box_muller(out, words)
        expected = normal(words, torch.float64)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-14)
        single = torch.empty(words.shape)
        box_muller(single, words)
        assert (single == out.float()).all()
