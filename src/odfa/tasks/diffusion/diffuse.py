"""Images out of noise: a denoiser learns to undo the steps of a diffusion.

Shape letters: `N` images · `D` pixels of all channels.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from odfa import data
from odfa.keys import torch_generator
from odfa.train.config import AnyData, DataConfig, DitConfig, UnetConfig
from odfa.train.networks import Denoiser
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited

_EVALUATION_KEY = 0xD1FF_0001
_EVALUATION_BATCH = 256


class Diffuse(AbstractTask):
    """Mean square error of what the denoiser predicts, compared by itself; pixels are in [-1, 1]."""

    metric = Metric(name="denoising_loss", better="lower")

    def load(self, config: AnyData) -> data.Splits:
        """The three parts, pixels in [-1, 1]."""
        assert isinstance(config, DataConfig)
        raw = data.load_fashion(config.path, validation=config.validation).limited(config.limit)
        return raw.fingerprinted().centred()

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes, without loading."""
        assert isinstance(config, DataConfig)
        return limited(data.peek_fashion(config.path, validation=config.validation), config.limit)

    def augment(self, batch: data.Split, config: AnyData, shape: data.DataShape) -> data.Split:
        """Images shifted and mirrored as the settings say."""
        assert isinstance(config, DataConfig)
        assert shape.image is not None
        return data.augment(batch, shape.image, shift=config.shift, flip=config.flip)

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """Error at steps drawn anew, a share of the classes dropped, a scalar."""
        assert isinstance(model, Denoiser)
        t_N = torch.randint(model.config.timesteps, (len(batch),))
        dropped_N = torch.rand(len(batch)) < model.config.drop_class
        c_N = torch.where(dropped_N, model.num_classes, batch.y_N)
        return _error(model, batch.x_ND, torch.randn_like(batch.x_ND), t_N, c_N)

    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss with the classes known, at noise and steps that are the same each time."""
        assert isinstance(model, Denoiser)
        total = 0.0
        with evaluating(model):
            for piece, noise_ND, t_N in _corrupted(part, model.config.timesteps):
                total += _error(model, piece.x_ND, noise_ND, t_N, piece.y_N).item() * len(piece)
        return {"loss": total / len(part), self.metric.name: total / len(part)}


def _corrupted(part: data.Split, timesteps: int) -> Iterator[tuple[data.Split, Tensor, Tensor]]:
    """Pieces of the part with their noise, and steps that cover the diffusion evenly in each piece."""
    generator = torch_generator(_EVALUATION_KEY)
    for index_N in torch.split(torch.arange(len(part)), _EVALUATION_BATCH):
        t_N = ((torch.arange(len(index_N)) + 0.5) / len(index_N) * timesteps).long()
        shuffled_N = t_N[torch.randperm(len(t_N), generator=generator)]
        yield part.take(index_N), torch.randn(len(index_N), part.x_ND.shape[1], generator=generator), shuffled_N


def _error(model: Denoiser, x_ND: Tensor, noise_ND: Tensor, t_N: Tensor, c_N: Tensor) -> Tensor:
    """mean (f(x_t, t, c) - target)²,   x_t = √ᾱ x + √(1 - ᾱ) ε,   v = √ᾱ ε - √(1 - ᾱ) x   (arXiv 2202.00512)"""
    scheduler = ddpm_scheduler(model.config)
    noisy_ND = scheduler.add_noise(x_ND, noise_ND, t_N)
    targets = {
        "epsilon": lambda: noise_ND,
        "sample": lambda: x_ND,
        "v_prediction": lambda: scheduler.get_velocity(x_ND, noise_ND, t_N),
    }
    return mse_loss(model(noisy_ND, t_N, c_N), targets[model.config.prediction]())


@lru_cache(maxsize=8)
def ddpm_scheduler(config: DitConfig | UnetConfig) -> Any:
    """The library's scheduler of the diffusion that these settings name.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    with data.needs("diffusers", "diffusion models"), data.quietly():
        from diffusers import DDPMScheduler
    settings: dict[str, Any] = {"beta_schedule": config.schedule, "prediction_type": config.prediction}
    return DDPMScheduler(num_train_timesteps=config.timesteps, clip_sample=True, **settings)
