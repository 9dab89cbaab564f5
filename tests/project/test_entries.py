"""Codes of a few entries without their patterns: the same draws, the same projections up to rounding."""

import pytest
import torch

from odfa.encode import Sign, Spread, Ternary
from odfa.errors import ConfigError
from odfa.flow import Entries
from odfa.project import Encoded, Gaussian, Hadamard, Rademacher
from odfa.structured import counter


def rows(num_rows, num_inputs, dtype=torch.float32):
    e_ND = torch.randn(num_rows, num_inputs, generator=torch.Generator().manual_seed(1), dtype=dtype)
    e_ND[0, :] = e_ND[0].abs()  # nothing negative: every second entry has gain zero
    return e_ND


def projections():
    return [Gaussian(3), Gaussian(3, stored=False), Rademacher(3), Hadamard(3)]


@pytest.mark.parametrize("repeats", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_are_what_the_patterns_light(repeats, dtype):
    e_ND = rows(6, 40, dtype)
    encoder, other = (Ternary("sampled", repeats=repeats, seed=2) for _ in range(2))
    for _ in range(2):  # each call has draws of its own
        frames, entries = encoder.encode(e_ND), other.entries(e_ND)
        entries.check()
        assert entries.num_inputs == 40
        assert torch.equal(entries.gain_NF, frames.gain_NF)
        lit_NF = entries.gain_NF != 0
        assert torch.equal(frames.bits_NFD.sum(2), lit_NF.long())
        assert torch.equal(frames.bits_NFD.long().argmax(2)[lit_NF], entries.index_NF[lit_NF])
        assert entries.density == frames.density
        torch.testing.assert_close(entries.values(), frames.values())
    assert encoder.state_dict() == other.state_dict()


def test_whose_patterns_have_more_says_so():
    for encoder in (Ternary(), Ternary("best_cosine"), Sign(), Spread(Ternary("sampled"))):
        assert not encoder.lights_one
        with pytest.raises(ConfigError, match="more than one entry"):
            encoder.entries(rows(2, 4))


@pytest.mark.parametrize("projection", projections(), ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("repeats", "num_outputs"), [(1, 1), (2, 255), (1, 256), (3, 257), (2, 1000)])
def test_projections_of_entries_are_those_of_their_values(projection, repeats, num_outputs, dtype):
    projection, entries = projection.shaped(500, num_outputs), Ternary("sampled", repeats=repeats).entries(rows(7, 500))
    entries = Entries(index_NF=entries.index_NF, gain_NF=entries.gain_NF.to(dtype), num_inputs=500)
    exact_NM = entries.values().double() @ projection.matrix().double()
    p_NM = projection.project_entries(entries)
    assert p_NM.dtype == dtype
    scale = 3e-6 if dtype == torch.float32 else 1e-6  # the transform's matrix() is float32
    assert (p_NM.double() - exact_NM).abs().max() < scale * entries.values().norm(dim=1).max()
    none = Entries(index_NF=entries.index_NF[:0], gain_NF=entries.gain_NF[:0], num_inputs=500)
    assert projection.project_entries(none).shape == (0, num_outputs)
    with pytest.raises(ConfigError, match="500"):
        projection.project_entries(Entries(index_NF=entries.index_NF, gain_NF=entries.gain_NF, num_inputs=501))


@pytest.mark.parametrize("num_outputs", [1, 255, 700])
@pytest.mark.parametrize("lit", [1, 2, 9])
def test_stored_or_not_a_few_entries_give_the_same_bits(lit, num_outputs, monkeypatch):
    from odfa.project import gaussian

    stored, drawn = (Gaussian(5, stored=stored).shaped(600, num_outputs) for stored in (True, False))
    entries = Ternary("sampled", repeats=lit).entries(rows(9, 600))
    sparse_ND = torch.zeros(9, 600)
    sparse_ND[:, :lit] = rows(9, lit)
    for most in (2**24, 1):
        monkeypatch.setattr(gaussian, "_GATHERED", most)
        assert torch.equal(stored.project_entries(entries), drawn.project_entries(entries))
        assert torch.equal(stored.project(sparse_ND), drawn.project(sparse_ND))


@pytest.mark.parametrize("projection", projections(), ids=repr)
def test_wide_errors_are_projected_without_patterns(projection, monkeypatch):
    e_ND = rows(6, 512)
    e_ND[3] = 0
    encoded = Encoded(projection, Ternary("sampled", repeats=4)).shaped(512, 30)
    by_patterns = Ternary("sampled", repeats=4).encode(e_ND[e_ND.any(1)])
    exact_NM = torch.zeros(6, 30).double()
    exact_NM[e_ND.any(1)] = by_patterns.values().double() @ encoded.matrix().double()
    monkeypatch.setattr(Ternary, "encode", None)
    p_NM = encoded.project(e_ND)
    assert (p_NM - exact_NM).abs().max() < 3e-6 * e_ND.abs().sum(1).max()
    assert encoded.diagnostics["density"] == by_patterns.density


def test_narrow_errors_are_multiplied(monkeypatch):
    monkeypatch.setattr(Ternary, "entries", None)
    for num_inputs in (10, 255, 511):
        encoded = Encoded(Gaussian(), Ternary("sampled", repeats=4)).shaped(num_inputs, 3)
        assert encoded.project(rows(2, num_inputs)).any()


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**62 + 12_345])
def test_signs_by_index(key):
    expected_DM = torch.from_numpy(counter.entries(key, range(130), 200)) < 0
    row = torch.tensor([[0, 63], [64, 199], [5, 5]])
    assert torch.equal(counter.entries_at(key, row, 130), expected_DM[row])
