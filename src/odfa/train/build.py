"""From a config to the live objects of a run."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from odfa.data import DataShape, Splits
from odfa.errors import ConfigError
from odfa.keys import mix
from odfa.train.average import averaged
from odfa.train.config import DataConfig, OptimizerConfig, RunConfig
from odfa.train.memory import check_memory, fitted_optimizer, give_back_freed, new_weights, recompute_blocks
from odfa.train.networks import network_of
from odfa.train.tasks import AbstractTask, get_task

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from odfa.demodulate import AbstractDemodulator
    from odfa.encode import AbstractEncoder
    from odfa.engine import DFA, FusedOptimizer
    from odfa.opu import AbstractOpu
    from odfa.project import AbstractProjection

_T = TypeVar("_T")
_INIT_KEY, _STEP_KEY, _TERNARY_KEY, _NOISE_KEY = 0x7EA1_0001, 0x7EA1_0002, 0x7EA1_0003, 0x7EA1_0004


@dataclass(kw_only=True)
class Session:
    """A run in memory; `step` counts the steps done, `seconds` the time spent in them, `projecting_s` of that in
    stages 1 to 5."""

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
    def evaluated(self) -> nn.Module:
        """The model that figures are of: the average of the weights where one is kept."""
        return self.model if self.average is None else self.average.module

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training part."""
        return len(self.splits.train) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @property
    def num_parameters(self) -> int:
        """Trained numbers in the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def build(config: RunConfig) -> Session:
    """Data, model, feedback and optimiser of a run at step 0. Uses torch's global random state: fork it around this.

    Raises:
        ConfigError: settings that do not fit each other.
        DataError: data are missing or corrupt.
    """
    give_back_freed(config.memory)
    task = get_task(config.task)
    splits = task.load(config.data).check().fingerprinted()
    check_fit(config, splits.shape)
    model = build_model(config, splits.shape)
    average = None if config.optimizer.average is None else averaged(model, config.optimizer.average)
    dfa = attach(model, config, splits.shape)
    return Session(
        config=config,
        task=task,
        splits=splits,
        model=model,
        dfa=dfa,
        optimizer=fitted_optimizer(model, dfa, config),
        average=average,
    )


def check_fit(config: RunConfig, shape: DataShape) -> None:
    """Refuse a config that the data cannot serve.

    Raises:
        ConfigError: a batch larger than the training part, a rank that the read-out does not have, blocks of several
            widths for method identity, recalibration with a rule that cannot follow it, an unknown OPU.
        Incompatible: the OPU has too few mirrors or modes.
    """
    if shape.num_train < config.batch_size:
        raise ConfigError(
            f"batch_size: expected at most {shape.num_train}, the training samples, got {config.batch_size}"
        )
    _check_shift(config, shape)
    check_memory(config)
    num_outputs = network_of(config.model, shape).num_outputs
    if config.feedback.granularity != "block" and not config.model.branches:
        raise ConfigError(
            f"feedback.granularity={config.feedback.granularity}: this network has no residual branches, expected block"
        )
    if config.rule == "exact" and config.method in ("tdfa", "odfa"):
        raise ConfigError(f"rule=exact: expected method=dfa, which projects nothing, got {config.method}")
    if config.method == "identity" and len(set(config.model.widths)) > 1:
        raise ConfigError(f"method=identity: expected blocks of one width, got model.widths {config.model.widths}")
    if config.method in ("dfa", "tdfa", "odfa") and config.rule in ("aligned", "electronic"):
        _check_rank(config, num_outputs)
    if config.method == "odfa":
        if config.rule != "random" and config.feedback.witness_lost == "recalibrate":
            raise ConfigError(
                f"feedback.witness_lost=recalibrate: rule={config.rule} starts from the measured matrix and cannot go "
                "on with another one, expected stop"
            )
        build_optical(config).shaped(num_outputs, num_projected(config, shape))


def check_threads(config: RunConfig) -> None:
    """Refuse more threads than this machine has processors.

    Raises:
        ConfigError: it has fewer.
    """
    most = os.cpu_count() or 1
    if config.threads is not None and config.threads > most:
        raise ConfigError(f"threads: expected at most {most}, the processors of this machine, got {config.threads}")


def _check_shift(config: RunConfig, shape: DataShape) -> None:
    shift = config.data.shift if isinstance(config.data, DataConfig) else 0
    if shift and shape.image is not None and shift >= min(shape.image[1:]):
        raise ConfigError(f"data.shift: expected fewer pixels than {min(shape.image[1:])}, the side, got {shift}")


def _check_rank(config: RunConfig, num_outputs: int) -> None:
    rank, side = correction_rank(config, num_outputs), min(num_outputs, config.model.widths[-1])
    lowest = int(config.rule == "electronic")  # rank 0 would leave that rule with nothing
    if not lowest <= rank < side:
        raise ConfigError(
            f"feedback.rank: rule={config.rule} on a read-out of {num_outputs} x {config.model.widths[-1]} expects "
            f"{lowest} to {side - 1} (from {side} it would be the exact product), got {rank}"
        )


def correction_rank(config: RunConfig, num_outputs: int) -> int:
    """Rank of the electronic correction: as set, else an eighth of the read-out's smaller side."""
    if config.feedback.rank is not None:
        return config.feedback.rank
    eighth = min(num_outputs, config.model.widths[-1]) // 8
    return max(1, eighth) if config.rule == "electronic" else eighth


def num_projected(config: RunConfig, shape: DataShape) -> int:
    """Outputs of the projection: a slice for each block, one shared slice, or the head's input."""
    if config.rule == "random":
        widths = fed(config, network_of(config.model, shape).signal_widths)
        return max(widths) if config.feedback.shared else sum(widths)
    return config.model.widths[-1]


def fed(config: RunConfig, of_blocks: tuple[_T, ...]) -> tuple[_T, ...]:
    """What belongs to the blocks at whose output feedback enters: the last of each group, counted from the end."""
    return of_blocks[::-1][:: config.feedback.group][::-1]


def build_model(config: RunConfig, shape: DataShape) -> nn.Module:
    """The network with the initial weights that `config.seed` names."""
    torch.manual_seed(mix(_INIT_KEY, config.seed))
    with new_weights(config.memory):
        return network_of(config.model, shape).build()


def seed_step(config: RunConfig, step: int) -> None:
    """Key torch's random state by the step, so that no generator state has to be saved."""
    torch.manual_seed(mix(_STEP_KEY, config.seed, step))


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Rate of step `step` (from 0): linear warm-up, then constant or cosine.

    rate = top * ramp * (final + (1 - final) * (1 + cos(pi t)) / 2),   t = share of the steps after the warm-up
    """
    ramp = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "constant":
        return config.learning_rate * ramp
    share = max(0, step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    wave = (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate * ramp * (config.final_share + (1 - config.final_share) * wave)


def attach(
    model: nn.Module, config: RunConfig, shape: DataShape, *, projection: "AbstractProjection | None" = None
) -> "DFA | None":
    """The DFA handle that `config.method` and `config.rule` name; None for backpropagation.

    Args:
        projection: takes the place of the method's own.

    Raises:
        ConfigError, Incompatible: what `check_fit` refuses.
    """
    check_fit(config, shape)
    if config.method == "bp":
        recompute_blocks(model, config.memory)
        return None
    from odfa.engine import DFA
    from odfa.engine.handle import Recompute

    activations = config.memory.activations
    recompute: Recompute = "stream" if activations == "stream" else activations == "recompute"
    granularity = "block" if config.method == "shallow" else config.feedback.granularity
    settings = _METHODS[config.method](config, network_of(config.model, shape).num_outputs)
    if projection is not None and "projection" in settings:
        settings["projection"] = projection
    return DFA(
        model,
        blocks=fed(config, config.model.blocks),
        branches=() if granularity == "block" else config.model.branches,
        linears=config.model.linears if granularity == "linear" else (),
        recompute=recompute,
        overwrite_head=True,  # a run has just built its head
        **settings,
    )


def _shallow(_config: RunConfig, _num_outputs: int) -> dict[str, Any]:
    from odfa.engine import Shallow

    return {"rule": Shallow()}


def _digital(config: RunConfig, num_outputs: int) -> dict[str, Any]:
    from odfa.project import Gaussian, Hadamard, Rademacher

    made = {"gaussian": Gaussian, "hadamard": Hadamard, "rademacher": Rademacher}
    feedback = made[config.feedback.projection](seed=config.feedback.seed)
    return {"projection": feedback, "rule": _rule(config, num_outputs), "error_at": "logits"}


def _digital_ternary(config: RunConfig, num_outputs: int) -> dict[str, Any]:
    return {**_digital(config, num_outputs), "encoder": _encoder(config)}


def _optical(config: RunConfig, num_outputs: int) -> dict[str, Any]:
    return {"projection": build_optical(config), "rule": _rule(config, num_outputs), "error_at": "logits"}


def _identity(config: RunConfig, _num_outputs: int) -> dict[str, Any]:
    from odfa.engine import RandomFeedback
    from odfa.project import Identity

    return {"projection": Identity(), "rule": RandomFeedback(shared=True), "error_at": config.model.blocks[-1]}


_METHODS = {
    "shallow": _shallow,
    "dfa": _digital,
    "tdfa": _digital_ternary,
    "odfa": _optical,
    "identity": _identity,
}


DEMODULATORS = ("phase", "phase3", "offaxis", "anchor")


def make_demodulator(name: str) -> "AbstractDemodulator":
    """The demodulator behind a word of the command line."""
    from odfa.demodulate import Anchor, OffAxis, PhaseSteps

    made: dict[str, Callable[[], AbstractDemodulator]] = {
        "phase": PhaseSteps,
        "phase3": lambda: PhaseSteps(3),
        "offaxis": OffAxis,
        "anchor": Anchor,
    }
    return made[name]()


def build_optical(config: RunConfig) -> "AbstractProjection":
    """The optical projection of method odfa: ternary frames, an OPU, a demodulator, a guard against drift.

    Raises:
        ConfigError: no OPU of this name, or seed or drift of a twin asked of another OPU.
        CalibrationError: the calibration is missing, corrupt or changed.
    """
    from odfa.opu import Calibration
    from odfa.project import Guard, Optical

    feedback = config.feedback
    measured = None if feedback.calibration is None else Calibration.load(feedback.calibration)
    guard = None
    if feedback.witness_every is not None:
        guard = Guard(every=feedback.witness_every, correct=feedback.witness_correct, when_lost=feedback.witness_lost)
    return Optical(
        _opu(config),
        encoder=_encoder(config),
        demodulator=make_demodulator(feedback.demodulator),
        guard=guard,
        calibration=measured,
    )


def _opu(config: RunConfig) -> "AbstractOpu":
    from odfa.opu import TWINS, Drift, open_opu

    feedback = config.feedback
    if feedback.opu in TWINS:
        noise_seed = mix(_NOISE_KEY, config.seed)
        return open_opu(feedback.opu, seed=feedback.seed, noise_seed=noise_seed, drift=feedback.drift)
    twins = f"only the twins ({', '.join(sorted(TWINS))}) take it"
    if feedback.drift != Drift():
        raise ConfigError(f"feedback.drift: expected nothing set with opu={feedback.opu}; {twins}")
    if feedback.seed:
        raise ConfigError(
            f"feedback.seed: expected 0 with opu={feedback.opu}, whose matrix is its glass, got {feedback.seed}; "
            f"{twins}"
        )
    return open_opu(feedback.opu)


def _encoder(config: RunConfig) -> "AbstractEncoder":
    from odfa.encode import BitPlanes, Ternary

    feedback = config.feedback
    if feedback.bits is not None:
        return BitPlanes(feedback.bits)
    return Ternary(
        quantiser=feedback.quantiser,
        threshold=feedback.threshold if feedback.quantiser == "relative_max" else None,
        repeats=feedback.repeats,
        seed=mix(_TERNARY_KEY, config.seed),
    )


def _rule(config: RunConfig, num_outputs: int) -> Any:
    from odfa.engine import AlignedHead, ElectronicOnly, ExactHead, RandomFeedback

    feedback = config.feedback
    if config.rule == "random":
        return RandomFeedback(shared=feedback.shared)
    if config.rule == "exact":
        return ExactHead(scale=feedback.scale)
    chosen = AlignedHead if config.rule == "aligned" else ElectronicOnly
    rank = correction_rank(config, num_outputs)
    return chosen(scale=feedback.scale, rank=rank, every=feedback.every)
