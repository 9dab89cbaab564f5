"""What the settings of all digital projections have in common: a key, and perhaps an encoder before the matrix."""

from abc import abstractmethod
from dataclasses import dataclass

from odfa.encode import AbstractEncoder, EncoderSettings
from odfa.keys import mix
from odfa.project.base import AbstractProjection, ProjectionSettings
from odfa.project.encoded import Encoded
from odfa.settings import SEEDS, SEEDS_TOLD, require

_ENCODER_KEY = 0x7EA1_0003


def build_encoder(settings: EncoderSettings, run_seed: int) -> AbstractEncoder:
    """The encoder of a run: its draws are keyed by mix(0x7EA10003, run_seed)."""
    return settings.build(mix(_ENCODER_KEY, run_seed))


@dataclass(frozen=True, kw_only=True)
class EncodedSettings(ProjectionSettings):
    """A projection that computes, of the error itself or of what an encoder makes of it."""

    encoder: EncoderSettings | None = None
    """What makes patterns of the error first, as an instrument needs it; none: the error itself is projected."""

    @abstractmethod
    def bare(self) -> AbstractProjection:
        """The projection without the encoder."""

    def build(self, run_seed: int) -> AbstractProjection:
        """The projection, with the encoder before it where there is one."""
        if self.encoder is None:
            return self.bare()
        return Encoded(self.bare(), build_encoder(self.encoder, run_seed))


@dataclass(frozen=True, kw_only=True)
class DigitalSettings(EncodedSettings):
    """A random matrix that is named by a key."""

    dashes = "--"

    seed: int = 0
    """Key of the matrix."""

    def __post_init__(self) -> None:
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)

    @property
    def label(self) -> str:
        """The word "digital", with "encoded" after it where there is an encoder."""
        return "digital" if self.encoder is None else "digital, encoded"

    @property
    def electronic(self) -> str:
        """All of the learning, the projection included."""
        if self.encoder is None:
            return "all: digital projection"
        return f"all: digital projection of the {self.encoder.code} error"
