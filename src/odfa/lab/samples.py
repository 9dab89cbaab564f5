"""The contract of `odfa sample`: each way to sample from trained runs is a settings class, which a task names."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfa.errors import ConfigError
from odfa.lab.destination import check_figure
from odfa.settings import SettingError, Settings, apply, kinds_of, named, shown, tag_of
from odfa.settings.kinds import words_of
from odfa.store.folder import read_config
from odfa.store.placed import loading_on
from odfa.tasks.base import AbstractTask


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What was sampled, in both forms of the command line."""

    json: dict[str, Any]
    """One JSON object."""
    text: str
    """What a person reads."""


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Settings, ABC, room="odfa.tasks", group="odfa.samples"):
    """One way to sample: its fields are what `odfa sample RUN… key=value` takes.

    A task names it by `samples`: the word of a kind in `odfa/tasks/NAME/samples.py` or of an entry point of
    `odfa.samples`, or package.module:Name. All fields have defaults.
    """

    device: str | None = None
    """Where the models compute: cpu, cuda, cuda:N, mps, xpu, xpu:N or auto; none: each where its run was trained."""

    def sampled(self, run_dirs: Sequence[Path | str]) -> Samples:
        """What `make` makes of these runs, their models on `device`.

        Raises:
            ConfigError: this machine has no such device; and everything that `make` raises.
        """
        with loading_on(self.device, run_dirs):
            return self.make(run_dirs)

    @abstractmethod
    def make(self, run_dirs: Sequence[Path | str]) -> Samples:
        """Sample from these runs (`odfa.load_run` opens one); `run_dirs` is not empty.

        Models are given tensors of the processor and answer with them, wherever they compute; within
        `run.computing()` in the precision that the run was evaluated in.

        Raises:
            RunFolderError: not a run folder. CheckpointError: no checkpoint, or one of another architecture.
            ConfigError: runs that cannot be sampled so, or settings that do not fit them.
        """


@dataclass(frozen=True, kw_only=True)
class DrawnSamples(SampleSettings):
    """Samples that are drawn into a figure."""

    out: Path | None = None
    """File to draw into, such as samples.png; it has to be given."""

    def destination(self) -> Path:
        """The file to draw into; nothing is made.

        Raises:
            ConfigError: none is given, or no figure can be drawn into it.
        """
        if self.out is None:
            raise SettingError("out", "expected a file to draw into, such as out=samples.png, got none")
        return check_figure(self.out, "out")


def ways() -> Mapping[str, SampleSettings]:
    """Word → default settings, for every way to sample that this package or an installed one has."""
    return {word: _settings(word) for word in words_of(SampleSettings)}


def settings_of(run_dirs: Sequence[Path | str]) -> SampleSettings:
    """Default settings of the way in which the task of these runs is sampled.

    Raises:
        RunFolderError: not a run folder. ConfigError: the task offers no samples, or the runs are sampled differently.
    """
    configs = [read_config(run_dir) for run_dir in run_dirs]
    first = configs[0].task
    for run_dir, config in zip(run_dirs, configs, strict=True):
        if not config.task.samples:
            offering = [word for word, kind in kinds_of(AbstractTask).items() if kind.samples]
            raise ConfigError(
                f"{run_dir} is a run of {config.recipe}, whose task={tag_of(config.task)} offers no samples; name runs "
                f"of a task that does, such as {', '.join(offering)}"
            )
        if config.task.samples != first.samples:
            raise ConfigError(
                f"{run_dir}: expected task={tag_of(first)} as in {run_dirs[0]}, got task={tag_of(config.task)}; sample "
                "them one after the other"
            )
    return _settings(first.samples)


def sample(run_dirs: Sequence[Path | str], words: Iterable[str] = ()) -> Samples:
    """What `odfa sample` makes of these runs and `key=value` words.

    Raises:
        ConfigError: what `settings_of`, `odfa.settings.apply` or `SampleSettings.sampled` raise; other errors too.
    """
    return apply(settings_of(run_dirs), words).sampled(run_dirs)


def _settings(word: str) -> SampleSettings:
    found = named(SampleSettings, word)
    if not isinstance(found, SampleSettings):
        raise ConfigError(f"{word}: expected settings of samples (odfa.lab.SampleSettings), got {shown(found)}")
    return found
