"""Climate projection with a vision Transformer."""

from dataclasses import replace

from odfa.train.config import ClimateBenchConfig, ClimateConfig, FeedbackConfig, OptimizerConfig, RunConfig, VitConfig


def climate_vit() -> RunConfig:
    """From past decades, lead time and forcing to later surface temperature over North America, two scenarios."""
    return RunConfig(
        recipe="climate_vit",
        task="climate",
        rule="aligned",
        steps=600,
        batch_size=32,
        log_every=10,
        checkpoint_every=200,
        evaluate_every=50,
        threads=1,
        model=VitConfig(patch=6, width=64, layers=4, heads=4),
        data=ClimateConfig(),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=30, clip_norm=1.0, weight_decay=0.05),
        feedback=FeedbackConfig(quantiser="best_cosine", scale=0.5, rank=0),
    )


def climate_vit_tiny() -> RunConfig:
    """`climate_vit` with few samples and steps; seconds."""
    run = climate_vit()
    return replace(
        run,
        recipe="climate_vit_tiny",
        steps=60,
        checkpoint_every=30,
        evaluate_every=20,
        model=VitConfig(patch=12, width=32, layers=2, heads=2),
        data=replace(run.data, limit=256),
        optimizer=replace(run.optimizer, warmup_steps=5),
    )


def climatebench_vit() -> RunConfig:
    """From the emissions of a year to its climate, on ClimateBench files at data.path."""
    run = climate_vit()
    return replace(
        run,
        recipe="climatebench_vit",
        task="climatebench",
        steps=1500,
        batch_size=16,
        checkpoint_every=500,
        evaluate_every=100,
        model=VitConfig(patch=12, width=96, layers=4, heads=4),
        data=ClimateBenchConfig(),
    )


def climatebench_vit_tiny() -> RunConfig:
    """`climatebench_vit` with few samples and steps; seconds."""
    run = climatebench_vit()
    return replace(
        run,
        recipe="climatebench_vit_tiny",
        steps=20,
        batch_size=8,
        checkpoint_every=10,
        evaluate_every=10,
        model=VitConfig(patch=12, width=32, layers=2, heads=2),
        data=ClimateBenchConfig(limit=64),
        optimizer=replace(run.optimizer, warmup_steps=2),
    )
