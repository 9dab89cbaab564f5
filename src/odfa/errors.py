"""Named errors, whose messages say what was expected, what was given and what to do next.

`ConfigError`, `MatchError` and `DataError` are also `ValueError`s, so that `except ValueError` keeps working for
people who do not know odfa. The command line turns every `OdfaError` into one line.
"""


class OdfaError(Exception):
    """Base of the errors that odfa raises for its users."""


class ConfigError(OdfaError, ValueError):
    """A setting is unknown, of the wrong type, or does not fit another one."""


class MatchError(OdfaError, ValueError):
    """Block patterns, taps or shapes do not match the model; the model has not been touched."""


class DataError(OdfaError, ValueError):
    """Data are missing, corrupt, or not what the recipe declares."""


class MissingExtra(OdfaError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""


class NonFinite(OdfaError, ArithmeticError):
    """A loss or a feedback signal is NaN or infinite; the optimiser has not moved."""


class RunFolderError(OdfaError, OSError):
    """A run folder cannot be read or written."""


class CheckpointError(OdfaError, ValueError):
    """A checkpoint is corrupt, foreign, or belongs to another model or projection."""


class OpuError(OdfaError, RuntimeError):
    """An OPU does not do what its contract says; subclasses name the fault."""


class Incompatible(OpuError, ValueError):
    """Encoder, OPU and demodulator do not fit together; found before the first frame."""


class FrameMismatch(OpuError):
    """The camera returned another number or shape of frames than the mirrors showed."""


class Saturated(OpuError):
    """Too many camera pixels are at full scale for the demodulator to be linear."""


class Dark(OpuError):
    """Mirrors are lit and the camera sees nothing: laser off, shutter shut, fibre unplugged."""


class Disconnected(OpuError):
    """The hardware does not answer, or not in time."""


class Drifted(OpuError):
    """The medium is no longer the one that was calibrated, so the feedback cannot be trusted."""


class CalibrationError(OpuError, ValueError):
    """A calibration is missing, stale, corrupt, or belongs to another OPU, layout or demodulator."""
