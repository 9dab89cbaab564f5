"""Is the structured matrix as Gaussian as a Gaussian one? On the shipped kernels."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from odfa.project import Gaussian, Hadamard
from odfa.structured import Structured


def project(x_ND: np.ndarray, num_outputs: int, seed: int = 0) -> np.ndarray:
    return Structured(seed, x_ND.shape[1]).project(torch.from_numpy(x_ND.astype(np.float32)), num_outputs).numpy()


def marchenko_pastur(count: int, ratio: float) -> np.ndarray:
    """Quantiles of the eigenvalues of A^T A / m, A (m, n), ratio = n / m <= 1."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    theta = (np.arange(200_000) + 0.5) / 200_000 * math.pi
    value = (low + high) / 2 - (high - low) / 2 * np.cos(theta)
    density = ((high - low) / 2 * np.sin(theta)) ** 2 / (2 * math.pi * ratio * np.maximum(value, 1e-12))
    cumulative = np.cumsum(density)
    return np.interp((np.arange(count) + 0.5) / count, cumulative / cumulative[-1], value)


@pytest.mark.parametrize("lit", [1, 2, 3, 10, 100, 1000, None])
@pytest.mark.parametrize("num_inputs", [1000, 4096, 6000])
def test_outputs_are_standard_normal(num_inputs, lit):
    """Kolmogorov-Smirnov distance; 2^20 outputs have 0.0013 at 5 % by sampling alone."""
    generator = np.random.default_rng(lit)
    found = []
    for seed in range(16):
        x_1D = np.zeros((1, num_inputs))
        places = generator.permutation(num_inputs)[:lit]
        x_1D[0, places] = generator.choice([-1, 1], len(places)) / math.sqrt(len(places))
        found.append(project(x_1D, 2**16, seed).ravel())
    assert stats.kstest(np.concatenate(found), "norm").statistic <= 0.003


@pytest.mark.parametrize("kind", ["ones", "half", "alternating", "walsh"])
def test_structured_inputs_give_normal_outputs_too(kind):
    place = np.arange(4096)
    x = {"ones": 1.0 + 0 * place, "half": place < 2048, "alternating": 1 - 2.0 * (place & 1)}
    x["walsh"] = 1 - 2.0 * (np.bitwise_count(place & 0b1011_0110_1101) & 1)
    x_1D = np.asarray(x[kind], dtype=np.float64)[None] / np.linalg.norm(x[kind])
    found = np.concatenate([project(x_1D, 2**16, seed).ravel() for seed in range(16)])
    assert stats.kstest(found, "norm").statistic <= 0.003


def test_four_entries_of_a_rectangle_are_independent():
    """Mean of B_ij B_i,j^s B_i^s,j B_i^s,j^s: 0 if independent, 0.99 for two transforms in place of three."""
    for seed in range(3):
        block = Hadamard(seed).shaped(1024, 1024).matrix().double().numpy()
        for shift in (1, 2, 3, 31, 32, 64, 100, 512, 1023):
            i, j = np.arange(1024), np.arange(1024)
            four = block * block[:, j ^ shift] * block[i ^ shift] * block[np.ix_(i ^ shift, j ^ shift)]
            assert abs(four.mean()) < 0.01


def test_rows_and_columns_are_as_uncorrelated_as_gaussian_ones():
    matrix_DM = Hadamard(1).shaped(1024, 2048).matrix().double().numpy()
    for entries in (matrix_DM, matrix_DM.T):
        overlap = entries @ entries.T / entries.shape[1]
        off = overlap[~np.eye(len(overlap), dtype=bool)] * math.sqrt(entries.shape[1])
        assert off.std() == pytest.approx(1, abs=0.05)
        assert np.abs(off).max() < 7


@pytest.mark.parametrize(
    ("num_inputs", "num_outputs"),
    [
        (1024, 1024),
        (2048, 2048),
        (1024, 2048),
        (1200, 2048),
        (1500, 1500),
        (1100, 1100),
        (2048, 1024),
        (1500, 3000),
        (600, 900),
    ],
)
def test_spectrum_is_that_of_a_gaussian_matrix(num_inputs, num_outputs):
    """Wasserstein-1 distance of the singular values to the Marchenko-Pastur law, beside a Gaussian matrix's own."""
    small, large = sorted((num_inputs, num_outputs))
    law = np.sqrt(marchenko_pastur(small, small / large))
    distance = []
    for made in (Hadamard(3), Gaussian(3)):
        matrix_DM = made.shaped(num_inputs, num_outputs).matrix().double()
        singular = torch.linalg.svdvals(matrix_DM).numpy()[::-1] / math.sqrt(large)
        distance.append(np.abs(np.sort(singular) - law).mean())
    assert distance[0] <= 0.01, distance


def test_inner_products_are_kept_as_well_as_by_a_gaussian_matrix():
    num_outputs, spread = 1024, {}
    generator = np.random.default_rng(0)
    for made in (Hadamard, Gaussian):
        errors = []
        for seed in range(60):
            x, z = generator.standard_normal((2, 2000))
            z = (0.5 * x / np.linalg.norm(x) + math.sqrt(0.75) * z / np.linalg.norm(z)) * np.linalg.norm(x)
            pair = torch.from_numpy(np.stack([x, z]) / np.linalg.norm(x)).float()
            p = made(seed).shaped(2000, num_outputs).project(pair).double()
            errors.append(float(p[0] @ p[1] / num_outputs - pair[0].double() @ pair[1].double()))
        spread[made] = np.std(errors) * math.sqrt(num_outputs)
    assert spread[Hadamard] < 1.4 * spread[Gaussian]
