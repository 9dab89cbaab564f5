"""Data, as settings."""

from dataclasses import dataclass
from typing import Literal

from odfa.train.config.base import MAX_WIDTH, require, require_counts


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the data are and how they are cut."""

    path: str | None = None
    """Folder with the data; none: where the system's package puts them."""
    validation: int = 200
    """Samples held out of the training part; all choices are made on them."""
    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""
    shift: int = 0
    """Training images are shifted by up to this many pixels each way, anew in each step."""
    flip: bool = False
    """Half of the training images are mirrored left to right, anew in each step."""

    def __post_init__(self) -> None:
        require_counts(self, "data.", "validation", what="a positive number of samples")
        require(0 <= self.shift <= MAX_WIDTH, "data.shift", "zero or more pixels, fewer than the side", self.shift)
        require_counts(self, "data.", "limit", what="a positive number of samples or none")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text, and how it becomes sequences of tokens."""

    path: str | None = None
    """Folder of Cornell Movie-Dialogs, chitchat dataset.json, text file or folder of .txt files; none: the package
    chitchat-dataset."""
    vocabulary: int = 2048
    """Entries of the byte-level BPE that is trained on the training documents."""
    context: int = 64
    """Tokens in a sequence."""
    holdout: float = 0.05
    """Share of the documents in the validation part, and as much again in the test part."""
    validation: int = 1024
    """At most this many sequences of the validation part are looked at."""
    test: int | None = None
    """At most this many sequences of the test part; none: all."""
    limit: int | None = None
    """At most this many sequences in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        require(1 < self.context <= MAX_WIDTH, "data.context", f"2 to {MAX_WIDTH} tokens", self.context)
        require(0 < self.vocabulary <= MAX_WIDTH, "data.vocabulary", "a positive number", self.vocabulary)
        require(0 < self.holdout < 0.5, "data.holdout", "a share in (0, 0.5)", self.holdout)
        require_counts(self, "data.", "validation", what="a positive number of sequences")
        require_counts(self, "data.", "test", "limit", what="a positive number of sequences or none")


@dataclass(frozen=True, kw_only=True)
class ClimateConfig:
    """Which climate simulations, and what of them is held out."""

    path: str | None = None
    """Folder with A1B_north_america.nc and E1_north_america.nc; none: the package iris-sample-data."""
    held_out: Literal["decades", "A1B", "E1"] = "decades"
    """What the test part has that training has not: ten years out of every forty, or a scenario as a whole."""
    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        require_counts(self, "data.", "limit", what="a positive number of samples or none")


@dataclass(frozen=True, kw_only=True)
class ClimateBenchConfig:
    """Which ClimateBench files, and what is learned from them."""

    path: str | None = None
    """Folder with inputs_NAME.nc and outputs_NAME.nc; there is no other source."""
    variable: str = "tas"
    """What is learned: tas, pr, diurnal_temperature_range, pr90 or another variable of the outputs."""
    scenario: str = "ssp245"
    """Scenario of the test part."""
    limit: int | None = None
    """At most this many samples in each part, for quick runs; none: all."""

    def __post_init__(self) -> None:
        require_counts(self, "data.", "limit", what="a positive number of samples or none")


AnyData = DataConfig | TextConfig | ClimateConfig | ClimateBenchConfig
