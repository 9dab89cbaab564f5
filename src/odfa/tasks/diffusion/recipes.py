"""Garments out of noise with a diffusion Transformer and a U-Net."""

from dataclasses import replace

from odfa.train.config import DataConfig, DitConfig, FeedbackConfig, OptimizerConfig, RunConfig, UnetConfig


def fashion_diffusion() -> RunConfig:
    """Fashion-MNIST by class, a diffusion Transformer, velocity prediction: the comparison with backpropagation."""
    return RunConfig(
        recipe="fashion_diffusion",
        task="diffusion",
        rule="aligned",
        steps=2000,
        batch_size=64,
        log_every=20,
        checkpoint_every=500,
        evaluate_every=250,
        threads=1,
        model=DitConfig(patch=7, width=96, layers=4, heads=4),
        data=DataConfig(validation=2000),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, clip_norm=1.0, average=0.995),
        feedback=FeedbackConfig(bits=3, scale=0.5, group=2),
    )


def fashion_diffusion_tiny() -> RunConfig:
    """`fashion_diffusion` with half the width, two blocks and few images; seconds."""
    run = fashion_diffusion()
    return replace(
        run,
        recipe="fashion_diffusion_tiny",
        steps=60,
        log_every=5,
        checkpoint_every=30,
        evaluate_every=30,
        model=DitConfig(patch=7, width=32, layers=2, heads=2),
        data=DataConfig(validation=128, limit=512),
        optimizer=replace(run.optimizer, warmup_steps=5, average=0.9),
        feedback=replace(run.feedback, group=1),
    )


def fashion_unet() -> RunConfig:
    """The same task by a U-Net: convolutions, skip connections, one error row per image, random feedback."""
    run = fashion_diffusion()
    return replace(
        run,
        recipe="fashion_unet",
        rule="random",
        model=UnetConfig(channels=(16, 32)),
        feedback=replace(run.feedback, group=1),
    )


def fashion_unet_tiny() -> RunConfig:
    """`fashion_unet` with few channels and images; seconds."""
    run = fashion_diffusion_tiny()
    return replace(run, recipe="fashion_unet_tiny", rule="random", steps=20, model=UnetConfig(channels=(8, 8)))
