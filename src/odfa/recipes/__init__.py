"""Runs as plain functions that return a config; each has a `_tiny` sibling that takes seconds."""

from odfa.recipes.climate import climate_vit, climate_vit_tiny, climatebench_vit, climatebench_vit_tiny
from odfa.recipes.diffusion import fashion_diffusion, fashion_diffusion_tiny, fashion_unet, fashion_unet_tiny
from odfa.recipes.language import dialogue_gpt, dialogue_gpt_1b, dialogue_gpt_100m, dialogue_llama, dialogue_tiny
from odfa.recipes.table import RECIPES, Recipe, get
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

__all__ = [
    "RECIPES",
    "Recipe",
    "climate_vit",
    "climate_vit_tiny",
    "climatebench_vit",
    "climatebench_vit_tiny",
    "dialogue_gpt",
    "dialogue_gpt_100m",
    "dialogue_gpt_1b",
    "dialogue_llama",
    "dialogue_tiny",
    "digits",
    "digits_tiny",
    "fashion_cnn",
    "fashion_cnn_tiny",
    "fashion_diffusion",
    "fashion_diffusion_tiny",
    "fashion_mlp",
    "fashion_mlp_tiny",
    "fashion_unet",
    "fashion_unet_tiny",
    "fashion_vit",
    "fashion_vit_tiny",
    "get",
]
