"""Checked ranges per unit."""

from dataclasses import dataclass

import pytest

from odfa import units
from odfa.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"), [("rate_hz", 2000.0), ("max_rate_hz", 1440), ("exposure_s", 4e-4), ("power_w", 30)]
)
def test_sensible_values_pass(name, value):
    units.check(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate_hz", 2e9), ("exposure_s", 400.0), ("power_w", True), ("power_w", "30"), ("power_w", float("nan"))],
)
def test_values_in_the_wrong_unit_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        units.check(name, value)


def test_longest_suffix_decides():
    assert units.range_of("drift_rad_per_s") != units.range_of("phase_jitter_rad") == units.range_of("jitter_rad")


def test_names_without_units_are_refused():
    with pytest.raises(ConfigError, match="no known unit"):
        units.check("exposure", 1.0)


def test_fields_are_checked_and_none_is_off():
    @dataclass(frozen=True, kw_only=True)
    class Camera:
        read_noise_e: float | None = None
        bits: int = -1

    units.check_fields(Camera())
    with pytest.raises(ConfigError, match="read_noise_e"):
        units.check_fields(Camera(read_noise_e=-1.0))
