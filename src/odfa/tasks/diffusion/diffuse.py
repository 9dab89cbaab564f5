"""Denoising diffusion: a network learns to predict, from a noisy image, the noise that was added to it.

Shape letters: `N` images · `D` pixels of all channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from odfa.data import Split, Splits, needs, quietly
from odfa.keys import torch_generator
from odfa.settings import MAX_WIDTH, require
from odfa.tasks.base import AbstractTask, Metric, device_of, evaluating
from odfa.tasks.diffusion.denoiser import Denoiser

_EVALUATION_KEY = 0xD1FF_0001
"""Key of the noise that evaluation adds, the same in every run."""
_EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Diffuse(AbstractTask, kind="diffusion"):
    """Mean square error of the denoiser's prediction, which is also the metric; pixels are scaled to [-1, 1].

    The schedule of the noise is computed by the diffusers library.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"classes"})
    asks: ClassVar[str] = "noise"
    of_classes: ClassVar[bool] = False
    samples: ClassVar[str] = "images"

    timesteps: int = 1000
    """Number of steps of the diffusion."""
    schedule: Literal["squaredcos_cap_v2", "linear"] = "squaredcos_cap_v2"
    """How the noise grows with the step, by its name in the library."""
    prediction: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    """What the network predicts: velocity, noise or the clean image."""
    drop_class: float = 0.1
    """Share of the training images whose class is replaced by no class, for guidance without a classifier."""

    def __post_init__(self) -> None:
        require(0 < self.timesteps <= MAX_WIDTH, "timesteps", "a positive number of steps", self.timesteps)
        require(0 <= self.drop_class < 1, "drop_class", "a share in [0, 1)", self.drop_class)

    @property
    def metric(self) -> Metric:
        """The loss with noise and steps that are the same in each evaluation."""
        return Metric(name="denoising_loss", better="lower")

    def prepared(self, splits: Splits) -> Splits:
        """The parts with pixels scaled to [-1, 1]."""
        return splits.centred()

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean square error of a batch, a scalar; steps, noise and dropped classes are drawn at random."""
        assert isinstance(model, Denoiser)
        device = batch.x_ND.device
        # drawn on the processor: a seed means the same noise wherever the network is
        t_N = torch.randint(self.timesteps, (len(batch),)).to(device)
        dropped_N = (torch.rand(len(batch)) < self.drop_class).to(device)
        noise_ND = torch.randn(batch.x_ND.shape, dtype=batch.x_ND.dtype).to(device)
        c_N = torch.where(dropped_N, model.num_classes, batch.y_N)
        return self.error(model, batch.x_ND, noise_ND, t_N, c_N)

    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss with all classes given, and with noise and steps that are the same in each evaluation."""
        assert isinstance(model, Denoiser)
        total, device = 0.0, device_of(model)
        with evaluating(model):
            for cpu_piece, noise_ND, t_N in corrupted(part, self.timesteps):
                piece = cpu_piece.to(device)
                error = self.error(model, piece.x_ND, noise_ND.to(device), t_N.to(device), piece.y_N)
                total += error.item() * len(piece)
        return {"loss": total / len(part), self.metric.name: total / len(part)}

    def error(self, model: Denoiser, x_ND: Tensor, noise_ND: Tensor, t_N: Tensor, c_N: Tensor) -> Tensor:
        """mean (f(x_t, t, c) - target)²,   x_t = √ᾱ x + √(1 - ᾱ) ε,   v = √ᾱ ε - √(1 - ᾱ) x   (arXiv 2202.00512)"""
        scheduler = ddpm_scheduler(self)
        noisy_ND = scheduler.add_noise(x_ND, noise_ND, t_N)
        targets = {
            "epsilon": lambda: noise_ND,
            "sample": lambda: x_ND,
            "v_prediction": lambda: scheduler.get_velocity(x_ND, noise_ND, t_N),
        }
        return mse_loss(model(noisy_ND, t_N, c_N), targets[self.prediction]())


def corrupted(part: Split, timesteps: int) -> Iterator[tuple[Split, Tensor, Tensor]]:
    """The part in batches, each with noise and with steps that cover the diffusion evenly, from a fixed key."""
    # even steps instead of random ones: the loss depends strongly on the step, and few random steps lie unevenly
    generator = torch_generator(_EVALUATION_KEY)
    for index_N in torch.split(torch.arange(len(part)), _EVALUATION_BATCH):
        t_N = ((torch.arange(len(index_N)) + 0.5) / len(index_N) * timesteps).long()
        shuffled_N = t_N[torch.randperm(len(t_N), generator=generator)]
        yield part.take(index_N), torch.randn(len(index_N), part.x_ND.shape[1], generator=generator), shuffled_N


@lru_cache(maxsize=8)
def ddpm_scheduler(task: Diffuse) -> Any:  # DDPMScheduler, whose methods its library hides from type checkers
    """The library's scheduler for these settings.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    with needs("diffusers", "diffusion models"), quietly():
        from diffusers import DDPMScheduler
    return DDPMScheduler(
        num_train_timesteps=task.timesteps,
        beta_schedule=task.schedule,
        prediction_type=task.prediction,
        clip_sample=True,
    )
