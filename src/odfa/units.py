"""One unit per quantity: the last part of a physical name is its unit; values outside a sensible range are refused."""

from dataclasses import fields

from odfa.errors import ConfigError
from odfa.settings import SettingError, Settings, shown

RANGES: dict[str, tuple[float, float, str]] = {
    "read_noise_e": (0.01, 1_000.0, "electrons, rms"),
    "full_well_e": (100.0, 10_000_000.0, "electrons"),
    "exposure_s": (1e-7, 10.0, "seconds"),
    "pixel_rate_hz": (1e3, 1e11, "camera pixels per second"),
    "rate_hz": (0.1, 1e6, "frames per second"),
    "power_w": (0.1, 1e5, "watts"),
    "dark_e_per_s": (0.0, 1e6, "electrons per second"),
    "row_s": (1e-9, 1e-2, "seconds"),
    "overhead_s": (0.0, 1.0, "seconds"),
    "margin_s": (0.0, 1.0, "seconds"),
    "jitter_rad": (0.0, 10.0, "radians"),
    "drift_rad_per_s": (-1e3, 1e3, "radians per second"),
    "gain_jitter": (0.0, 1.0, "share of the mean, rms"),
    "decorrelation_s": (1e-6, 1e9, "seconds"),
    "warmup_rad": (0.0, 10.0, "radians, rms"),
    "warmup_s": (1e-3, 1e6, "seconds"),
    "flops_per_s": (1e6, 1e19, "operations per second"),
    "bytes_per_s": (1e3, 1e17, "bytes per second"),
    "memory_bytes": (1e6, 1e16, "bytes"),
    "call_s": (0.0, 1.0, "seconds"),
    "idle_w": (0.0, 1e5, "watts"),
    "j_per_byte": (0.0, 1e-6, "joules per byte"),
    "vector_s": (0.0, 1.0, "seconds"),
    "latency_s": (0.0, 1e3, "seconds"),
    "entry_s": (0.0, 1e-3, "seconds"),
    "product_s": (0.0, 1e-3, "seconds"),
    "pixel_s": (0.0, 1e-3, "seconds"),
    "uncertainty": (0.0, 0.9, "relative"),
}
"""Physically sensible range of every name that ends in one of these words; the longest match decides."""


def range_of(name: str) -> tuple[float, float, str] | None:
    """Range (low, high, unit) of the physical quantity `name`, or None if the name carries no known unit."""
    suffixes = [suffix for suffix in RANGES if name == suffix or name.endswith("_" + suffix)]
    return RANGES[max(suffixes, key=len)] if suffixes else None


def check(name: str, value: float) -> None:
    """Refuse a value that is outside the sensible range of its unit.

    Raises:
        ConfigError: the value is not a number within the range of the unit in `name`.
    """
    limits = range_of(name)
    if limits is None:
        raise ConfigError(f"{name} carries no known unit; expected a name that ends in one of {', '.join(RANGES)}")
    low, high, unit = limits
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingError(name, f"expected {low:g} to {high:g} {unit}, got {shown(value)}")


def check_fields(record: Settings) -> None:
    """Check every setting whose name carries a unit; None means "off" and passes.

    Raises:
        ConfigError: a field is outside the sensible range of its unit.
    """
    for entry in fields(record):
        value = getattr(record, entry.name)
        if range_of(entry.name) is not None and value is not None:
            check(entry.name, value)
