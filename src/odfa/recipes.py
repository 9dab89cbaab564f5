"""The recipes by name, with what they need."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from odfa.errors import ConfigError
from odfa.recipes.climate import climate_vit, climate_vit_tiny, climatebench_vit, climatebench_vit_tiny
from odfa.recipes.diffusion import (
    fashion_diffusion,
    fashion_diffusion_tiny,
    fashion_unet,
    fashion_unet_tiny,
)
from odfa.recipes.language import (
    dialogue_gpt,
    dialogue_gpt_1b,
    dialogue_gpt_2b7,
    dialogue_gpt_100m,
    dialogue_llama,
    dialogue_tiny,
)
from odfa.recipes.vision import (
    digits,
    digits_tiny,
    fashion_cnn,
    fashion_cnn_tiny,
    fashion_mlp,
    fashion_mlp_tiny,
    fashion_vit,
    fashion_vit_tiny,
)
from odfa.train.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A row of `odfa recipes`."""

    make: Callable[[], RunConfig]
    """Returns the config."""
    source: str
    """Where the data come from."""
    size: str
    """Samples and network."""
    expected_time: str
    """Training time of one run on two cores, from backpropagation to the twin."""


_DIGITS = "scikit-learn load_digits"
_FASHION = "Debian package dataset-fashion-mnist, or idx files at data.path"
_DIALOGUES = "package chitchat-dataset, or Cornell Movie-Dialogs or .txt files at data.path"
_CLIMATE = "package iris-sample-data, or its two files at data.path"
RECIPES = {
    "digits": Recipe(make=digits, source=_DIGITS, size="1,200 digits, 64-128x3-10", expected_time="1 to 4 seconds"),
    "digits_tiny": Recipe(
        make=digits_tiny, source=_DIGITS, size="300 digits, 64-64x2-10", expected_time="under a second"
    ),
    "fashion_mlp": Recipe(
        make=fashion_mlp, source=_FASHION, size="55,000 images, 784-1024x3-10", expected_time="1 to 3 minutes"
    ),
    "fashion_mlp_tiny": Recipe(
        make=fashion_mlp_tiny, source=_FASHION, size="1,280 images, 784-64x3-10", expected_time="about a second"
    ),
    "fashion_cnn": Recipe(
        make=fashion_cnn, source=_FASHION, size="55,000 images, residual CNN 3x48", expected_time="5 minutes"
    ),
    "fashion_cnn_tiny": Recipe(
        make=fashion_cnn_tiny, source=_FASHION, size="2,560 images, CNN 2x16", expected_time="seconds"
    ),
    "fashion_vit": Recipe(
        make=fashion_vit, source=_FASHION, size="55,000 images, ViT 4x64, 16 patches", expected_time="5 minutes"
    ),
    "fashion_vit_tiny": Recipe(
        make=fashion_vit_tiny, source=_FASHION, size="2,560 images, ViT 2x32", expected_time="seconds"
    ),
    "climate_vit": Recipe(
        make=climate_vit,
        source=_CLIMATE,
        size="two scenarios, 240 years, ViT 4x64, 48 patches",
        expected_time="minutes",
    ),
    "climate_vit_tiny": Recipe(
        make=climate_vit_tiny, source=_CLIMATE, size="256 samples, ViT 2x32, 12 patches", expected_time="seconds"
    ),
    "climatebench_vit": Recipe(
        make=climatebench_vit,
        source="ClimateBench files at data.path",
        size="NorESM2 by year, ViT 4x96, 96 patches",
        expected_time="half an hour",
    ),
    "climatebench_vit_tiny": Recipe(
        make=climatebench_vit_tiny,
        source="ClimateBench files at data.path",
        size="64 years, ViT 2x32",
        expected_time="seconds",
    ),
    "fashion_diffusion": Recipe(
        make=fashion_diffusion, source=_FASHION, size="58,000 images, DiT 4x96, 16 patches", expected_time="10 minutes"
    ),
    "fashion_diffusion_tiny": Recipe(
        make=fashion_diffusion_tiny, source=_FASHION, size="512 images, DiT 2x32", expected_time="seconds"
    ),
    "fashion_unet": Recipe(
        make=fashion_unet, source=_FASHION, size="58,000 images, U-Net 16-32", expected_time="10 minutes"
    ),
    "fashion_unet_tiny": Recipe(
        make=fashion_unet_tiny, source=_FASHION, size="512 images, U-Net 8-8", expected_time="seconds"
    ),
    "dialogue_tiny": Recipe(
        make=dialogue_tiny,
        source=_DIALOGUES,
        size="510 thousand tokens, GPT-2 3x128, 0.9 M parameters",
        expected_time="half a minute to two minutes",
    ),
    "dialogue_gpt": Recipe(
        make=dialogue_gpt,
        source=_DIALOGUES,
        size="1.5 million tokens, GPT-2 4x256, 4.2 M parameters",
        expected_time="5 to 15 minutes",
    ),
    "dialogue_gpt_100m": Recipe(
        make=dialogue_gpt_100m,
        source=_DIALOGUES,
        size="510 thousand tokens, GPT-2 12x768, 98 M parameters",
        expected_time="two hours",
    ),
    "dialogue_gpt_1b": Recipe(
        make=dialogue_gpt_1b,
        source=_DIALOGUES,
        size="82 thousand tokens, GPT-2 26x2048, 1.32 B parameters, 9 GB",
        expected_time="an hour",
    ),
    "dialogue_gpt_2b7": Recipe(
        make=dialogue_gpt_2b7,
        source=_DIALOGUES,
        size="1.5 thousand tokens, GPT-2 34x2560, 2.7 B parameters, 18 GB",
        expected_time="10 minutes",
    ),
    "dialogue_llama": Recipe(
        make=dialogue_llama,
        source=_DIALOGUES,
        size="1.5 million tokens, Llama 4x256",
        expected_time="5 to 15 minutes",
    ),
}


def get(name: str) -> RunConfig:
    """The config of a recipe.

    Raises:
        ConfigError: there is no such recipe; the message gives the nearest names.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3) or list(RECIPES)
        raise ConfigError(f"unknown recipe {name!r}; did you mean {' or '.join(near)}?")
    return RECIPES[name].make()
