"""Recipes that generate images of clothes from noise, with a diffusion Transformer and a U-Net."""

from dataclasses import replace

from odfa.encode import BitPlanesSettings
from odfa.engine.rules import LowRankHead, RandomFeedback
from odfa.project import OpticalSettings
from odfa.recipes import recipe
from odfa.session import AdamSettings, RunConfig
from odfa.tasks.diffusion.denoiser import DitNetwork, UnetNetwork
from odfa.tasks.diffusion.diffuse import Diffuse
from odfa.tasks.vision.fashion import FashionData

_FASHION = "Debian package dataset-fashion-mnist, or idx files at data.path"


@recipe(source=_FASHION, size="58,000 images, DiT 4x96, 16 patches", expected_time="10 minutes")
def fashion_diffusion() -> RunConfig:
    """Fashion-MNIST by class with a diffusion Transformer, to be compared with backpropagation."""
    return RunConfig(
        recipe="fashion_diffusion",
        task=Diffuse(),
        steps=2000,
        batch_size=64,
        log_every=20,
        checkpoint_every=500,
        evaluate_every=250,
        threads=1,
        network=DitNetwork(patch=7, width=96, layers=4, heads=4),
        data=FashionData(validation=2000),
        optimizer=AdamSettings(learning_rate=1.2e-2, warmup_steps=50, clip_norm=1.0, average=0.995),
        rule=LowRankHead(scale=0.5, rank=12, hops=1),
        projection=OpticalSettings(encoder=BitPlanesSettings(bits=3)),
    )


@recipe(source=_FASHION, size="512 images, DiT 2x32", expected_time="seconds")
def fashion_diffusion_tiny() -> RunConfig:
    """`fashion_diffusion` with a third of the width, two blocks and few images: takes seconds."""
    run = fashion_diffusion()
    return replace(
        run,
        recipe="fashion_diffusion_tiny",
        steps=60,
        log_every=5,
        checkpoint_every=30,
        evaluate_every=30,
        network=DitNetwork(patch=7, width=32, layers=2, heads=2),
        rule=LowRankHead(scale=0.5, rank=4, hops=1),
        data=FashionData(validation=128, limit=512),
        optimizer=replace(run.optimizer, learning_rate=2e-3, warmup_steps=5, average=0.9),
    )


@recipe(source=_FASHION, size="58,000 images, U-Net 16-32", expected_time="10 minutes")
def fashion_unet() -> RunConfig:
    """`fashion_diffusion` with a U-Net and random feedback, one error row per image."""
    run = fashion_diffusion()
    return replace(
        run,
        recipe="fashion_unet",
        rule=RandomFeedback(),
        network=UnetNetwork(channels=(16, 32)),
        optimizer=replace(run.optimizer, learning_rate=2e-3),
    )


@recipe(source=_FASHION, size="512 images, U-Net 8-8", expected_time="seconds")
def fashion_unet_tiny() -> RunConfig:
    """`fashion_unet` with few channels and images: takes seconds."""
    run = fashion_diffusion_tiny()
    return replace(
        run, recipe="fashion_unet_tiny", rule=RandomFeedback(), steps=20, network=UnetNetwork(channels=(8, 8))
    )
