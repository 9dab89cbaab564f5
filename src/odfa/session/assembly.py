"""Builds the objects of a run (data, model, DFA handle, optimiser) from its config."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from odfa.data import DataShape, Split, Splits
from odfa.devices import device_named
from odfa.engine.compiled import uncompiled
from odfa.errors import ConfigError
from odfa.keys import forked, mix
from odfa.session.average import averaged
from odfa.session.config import RunConfig
from odfa.session.handle import attach, check_feedback
from odfa.session.head_rows import learner_of
from odfa.session.memory import casting, check_memory, check_shares, fitted_optimizer, give_back_freed, new_weights
from odfa.settings import SettingError
from odfa.tasks.base import AbstractTask, device_of, evaluating

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from odfa.engine import DFA, FusedOptimizer

_INIT_KEY, _STEP_KEY = 0x7EA1_0001, 0x7EA1_0002
"""Mixed into the run's seed, so that initial weights and the draws of each step come from different streams."""


@dataclass(kw_only=True)
class Session:
    """A run in memory. `step` counts the steps done, `seconds` is the time spent in them, and `projecting_s` is the
    part of `seconds` spent in stages 1 to 5."""

    config: RunConfig
    task: AbstractTask
    splits: Splits
    model: nn.Module
    dfa: "DFA | None"
    optimizer: "torch.optim.Optimizer | FusedOptimizer"
    average: "AveragedModel | None" = None
    step: int = 0
    seconds: float = 0.0
    projecting_s: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the model is, and where batches have to go; the splits stay on the processor."""
        return device_of(self.model)

    @property
    def learner(self) -> nn.Module:
        """What the task computes its loss with: the model, or the model with its loss."""
        return learner_of(self.model, self.config)

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated: the same with the moving average of the weights if the run keeps one."""
        return self.learner if self.average is None else learner_of(self.average.module, self.config)

    def loss(self, batch: Split) -> Tensor:
        """Mean loss of a batch, in the precision of the run; call backward outside."""
        with casting(self.config.memory.precision, self.device):
            return self.task.loss(self.learner, batch)

    def evaluate(self, part: Split) -> dict[str, float]:
        """Loss and metric of the evaluated model over a part, in the precision of the run."""
        with casting(self.config.memory.precision, self.device):
            return self.task.evaluate(self.evaluated, part)

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in the training part; the samples that are left over are dropped."""
        return len(self.splits.train) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps of the whole run."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @property
    def num_parameters(self) -> int:
        """Number of weights in the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def build(config: RunConfig) -> Session:
    """Data, model, feedback and optimiser of a run at step 0. Uses torch's global random state: fork it around this.

    Raises:
        ConfigError: settings that do not fit each other or this machine.
        DataError: data are missing or corrupt.
    """
    give_back_freed(config.memory)  # before the first large allocation, which the setting would miss
    splits = config.task.load(config.data)
    check_fit(config, splits.shape)
    model = build_model(config, splits.shape)
    config.network.check_splits(splits)
    check_shares(model, config)
    # drawn on the processor, so that a seed means the same weights everywhere; moved before anything refers to them
    model = model.to(device_named(config.device))
    # copied before the handle attaches its hooks to the model: the copy must run without them
    average = None if config.optimizer.average is None else averaged(model, config.optimizer.average)
    dfa = attach(model, config, splits.shape)
    return Session(
        config=config,
        task=config.task,
        splits=splits,
        model=model,
        dfa=dfa,
        optimizer=fitted_optimizer(model, dfa, config),
        average=average,
    )


def check_fit(config: RunConfig, shape: DataShape) -> None:
    """Refuse a config that does not fit the data, or whose parts do not fit each other.

    Raises:
        ConfigError: a batch larger than the training part; looks that come after the last epoch; data, network, rule or
            projection that do not fit.
        Incompatible: the OPU has too few mirrors or modes.
    """
    if shape.num_train < config.batch_size:
        raise ConfigError(
            f"batch_size: expected at most {shape.num_train}, the training samples, got {config.batch_size}"
        )
    if config.steps is None:  # where steps are given, a recipe may look less often than a short run lasts
        for name, why in config.never_due(config.epochs * (shape.num_train // config.batch_size)).items():
            raise SettingError(name, f"{why}; leave it out, or give a smaller number")
    # from general to special: a network of another task would fail later with a message about its projection
    config.task.check_data(config.data)
    config.task.check_network(config.network)
    config.data.check(shape)
    check_memory(config)
    check_feedback(config, shape)


def check_threads(config: RunConfig) -> None:
    """Refuse more threads than this machine has processors.

    Raises:
        ConfigError: it has fewer.
    """
    most = os.cpu_count() or 1
    if config.threads is not None and config.threads > most:
        raise ConfigError(f"threads: expected at most {most}, the processors of this machine, got {config.threads}")


def check_device(config: RunConfig) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        ConfigError: torch sees no such device.
    """
    device_named(config.device)


def build_model(config: RunConfig, shape: DataShape) -> nn.Module:
    """The network with its initial weights, which `config.seed` determines."""
    torch.manual_seed(mix(_INIT_KEY, config.seed))
    with new_weights(config.memory):
        return config.network.build(shape)


def seed_step(config: RunConfig, step: int) -> None:
    """Key torch's random state by the step, so that no generator state has to be saved."""
    torch.manual_seed(mix(_STEP_KEY, config.seed, step))


def try_loss(session: Session) -> None:
    """Compute the loss of two samples as the first step will, so that a task, network or data that cannot do it raises
    before anything is written. Neither the weights nor the random draws of the run change."""
    config, train = session.config, session.splits.train
    modes = {module: module.training for module in session.model.modules()}  # a part may differ from the whole
    with forked([session.device]), evaluating(session.model), uncompiled(session.model):
        seed_step(config, 0)
        batch = train.take(torch.arange(min(2, config.batch_size)))
        batch = config.data.augmented(batch, session.splits.shape).to(session.device)
        session.loss(batch)
    for module, training in modes.items():
        module.training = training
