"""Calibration: what is measured is what is there; records are refused where they do not belong."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from odfa.demodulate import Anchor, OffAxis, PhaseSteps
from odfa.encode import Ternary
from odfa.errors import CalibrationError, ConfigError, Drifted, OpuError
from odfa.keys import torch_generator
from odfa.opu import Calibration, Drift, Reference, Twin
from odfa.project import Guard, Optical
from odfa.project.calibrating import Probe, calibrate, hadamard, measure_matrix, mode_grid, twin_from

D, M = 40, 64
EXACT = Ternary("best_cosine")


def rows(num_rows: int = 30) -> torch.Tensor:
    return (torch.randn(num_rows, D, generator=torch_generator(0)) > 0.8).float()


def record(twin: Twin | None = None, **settings: object) -> Calibration:
    return calibrate(twin or Twin(), num_inputs=D, num_modes=M, **settings)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("demodulator", [PhaseSteps(), OffAxis(), Anchor()], ids=repr)
def test_an_ideal_opu_measures_ideal(demodulator):
    found = record(Twin.ideal(), demodulator=demodulator)
    assert (found.noise_counts, found.paired) == (0.0, True)
    assert found.linearity_error < 1e-5
    assert found.repeatability == pytest.approx(1, abs=1e-6)
    assert found.gain == pytest.approx(1, abs=0.1)


def test_noise_floor_is_the_sensors():
    found = record(Twin())
    mean_counts = 0.3 * 255 * (0.5 + 16 * 0.3) / (17 * 0.3)  # half of the inputs lit, the reference as it is
    variance_counts2 = (mean_counts * 13_500 / 255 + 13**2) * (255 / 13_500) ** 2 + 1 / 12
    assert found.noise_counts == pytest.approx(math.sqrt(variance_counts2), rel=0.05)
    assert found.dark_counts == pytest.approx(0.3 * 255 * 16 / 17, rel=0.01)


@pytest.mark.parametrize("carrier", [(0.33, 0.33), (0.31, 0.34), (-0.33, 0.32)])
def test_the_mode_grid_is_found(carrier):
    twin = Twin(reference=Reference(carrier_cpp=carrier, pupil_cpp=0.11))
    found, radius = mode_grid(Probe(twin, OffAxis(), D, 200))
    assert found == pytest.approx(carrier, abs=0.012)
    assert radius == pytest.approx(0.11, rel=0.05)


def test_no_fringes_are_an_error():
    twin = Twin(reference=Reference(ratio=0.01))
    twin.carrier_cpp = (0.2, -0.4)  # the OPU believes in a carrier that is not there
    twin._reference = dataclasses.replace(twin._reference, ratio=0.01)
    with pytest.raises(OpuError, match="no interference fringes"):
        mode_grid(
            Probe(
                Twin(reference=Reference(ratio=0.01), sensor=dataclasses.replace(twin._sensor, exposure_fill=0.01)),
                OffAxis(),
                D,
                60,
            )
        )


@pytest.mark.parametrize("order", [1, 2, 64])
def test_hadamard_is_orthogonal(order):
    scipy_linalg = pytest.importorskip("scipy.linalg")
    assert torch.equal(hadamard(order).double(), torch.from_numpy(scipy_linalg.hadamard(order)).double())


def test_hadamard_patterns_average_the_noise_away():
    widths, gains = [16, 64, 256], []
    for width in widths:
        twin = Twin()
        exact_DM = twin.transmission(width, M)
        errors = {}
        for kind in ("hadamard", "one_hot"):
            errors[kind] = relative(measure_matrix(Probe(twin, PhaseSteps(), width, M), kind), exact_DM)
        gains.append(errors["one_hot"] / errors["hadamard"])
    # D fields are averaged, so the error falls as 1 / sqrt(D)
    assert np.polyfit(np.log(widths), np.log(gains), 1)[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("demodulator", [PhaseSteps(), OffAxis()], ids=repr)
def test_the_measured_matrix_is_the_matrix(demodulator):
    found = record(Twin.ideal(), demodulator=demodulator, matrix="hadamard")
    torch.testing.assert_close(
        found.matrix_DM.to(torch.complex128), Twin.ideal().transmission(D, M), atol=1e-5, rtol=1e-5
    )


def test_a_twin_of_a_calibration_projects_like_the_opu():
    opu = Twin(seed=4)
    found = record(opu, matrix="hadamard")
    twin = twin_from(found)
    ours, theirs = (Optical(d, encoder=EXACT).shaped(D, 2 * M).project(rows()) for d in (twin, opu))
    exact = Optical(Twin.ideal(4), encoder=EXACT).shaped(D, 2 * M).project(rows())
    noise = relative(theirs, exact)
    assert relative(ours, exact) < 1.5 * noise + 0.03
    statistics = twin_from(dataclasses.replace(found, matrix_DM=None))
    for mine in (twin, statistics):
        again = calibrate(mine, num_inputs=D, num_modes=M)
        assert again.noise_counts == pytest.approx(found.noise_counts, rel=0.1)
        assert again.dark_counts == pytest.approx(found.dark_counts, rel=0.02)


def test_records_survive_the_disk(tmp_path):
    for k, found in enumerate((record(matrix="hadamard"), record(demodulator=OffAxis()), record(demodulator=Anchor()))):
        loaded = Calibration.load(found.save(tmp_path / str(k)))
        assert loaded.id == found.id
        assert loaded.figures() == found.figures()
        assert torch.equal(loaded.witness_WM, found.witness_WM)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_changed_corrupt_and_missing_records_are_refused(tmp_path):
    path = record().save(tmp_path / "a")
    with pytest.raises(CalibrationError, match="exists already"):
        record().save(path)
    with pytest.raises(CalibrationError, match="no calibration in"):
        Calibration.load(tmp_path / "b")
    values = json.loads((path / "calibration.json").read_text())
    (path / "calibration.json").write_text(json.dumps({**values, "gain": 2.0}))
    with pytest.raises(CalibrationError, match="was changed"):
        Calibration.load(path)
    (path / "calibration.json").write_text("{")
    with pytest.raises(CalibrationError, match="corrupt"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("opu", "shape", "demodulator", "words"),
    [
        (Twin(seed=9), (D, 2 * M), PhaseSteps(), "for opu"),
        (Twin(), (D + 1, 2 * M), PhaseSteps(), "for inputs 40, this is 41"),
        (Twin(), (D, 2 * M + 2), PhaseSteps(), "for region"),
        (Twin(), (D, 2 * M), PhaseSteps(3), "for demodulator"),
    ],
)
def test_foreign_calibrations_are_refused_before_the_first_frame(opu, shape, demodulator, words):
    found = record()
    with pytest.raises(CalibrationError, match=words):
        Optical(opu, demodulator=demodulator, calibration=found).shaped(*shape)
    assert opu.spent.frames == 0


def test_stale_calibrations_are_refused():
    found = record()
    found.check_age(3600.0)
    with pytest.raises(CalibrationError, match=r"2\.0 hours old, at most 1\.0"):
        dataclasses.replace(found, created_s=found.created_s - 7200).check_age(3600.0)
    twin = Twin(drift=Drift(decorrelation_s=1.0))
    found = calibrate(twin, num_inputs=D, num_modes=M)
    twin._spent = dataclasses.replace(twin.spent, seconds=5.0)
    with pytest.raises(Drifted, match="no longer the one calibrated"):
        Optical(twin, calibration=found).shaped(D, 2 * M).project(rows())


def test_a_projection_takes_scale_matrix_and_identity_from_its_calibration():
    twin = Twin.ideal()
    found = record(twin, matrix="hadamard")
    optical = Optical(twin, encoder=EXACT, calibration=found, guard=Guard(every=10)).shaped(D, 2 * M)
    plain = Optical(Twin.ideal(), encoder=EXACT).shaped(D, 2 * M)
    expected_NM = plain.project(rows()) / found.gain
    torch.testing.assert_close(optical.project(rows()), expected_NM, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rows() @ optical.matrix(), expected_NM * rows().amax(1, True), atol=1e-3, rtol=1e-3)
    assert found.id in optical.identity
    assert twin.calibration_id == found.id
    with pytest.raises(ConfigError, match="does not expose its matrix"):
        plain.matrix()


def test_unknown_ways_to_measure_are_refused():
    with pytest.raises(ConfigError, match="hadamard, one_hot"):
        record(matrix="guess")
