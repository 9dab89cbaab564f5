"""Recipes that predict climate fields with a vision Transformer."""

from dataclasses import replace

from odfa.encode import BestCosineSettings
from odfa.engine.rules import AlignedHead
from odfa.project import OpticalSettings
from odfa.recipes import recipe
from odfa.session import AdamSettings, RunConfig
from odfa.tasks.climate.climatebench import ClimateBenchData
from odfa.tasks.climate.north_america import ClimateData
from odfa.tasks.climate.regress import Regress
from odfa.tasks.climate.vit import FieldVitNetwork

_CLIMATE = "package iris-sample-data, or its two files at data.path"
_BENCH = "ClimateBench files at data.path"


@recipe(source=_CLIMATE, size="two scenarios, 240 years, ViT 4x64, 48 patches", expected_time="minutes")
def climate_vit() -> RunConfig:
    """From past decades, lead time and forcing to later surface temperature over North America, two scenarios."""
    return RunConfig(
        recipe="climate_vit",
        task=Regress(unit="K"),
        steps=600,
        batch_size=32,
        log_every=10,
        checkpoint_every=200,
        evaluate_every=50,
        threads=1,
        network=FieldVitNetwork(patch=6, width=64, layers=4, heads=4),
        data=ClimateData(),
        optimizer=AdamSettings(learning_rate=3e-3, warmup_steps=30, clip_norm=1.0, weight_decay=0.05),
        rule=AlignedHead(scale=0.5, rank=0, hops=1),
        projection=OpticalSettings(encoder=BestCosineSettings()),
    )


@recipe(source=_CLIMATE, size="256 samples, ViT 2x32, 12 patches", expected_time="seconds")
def climate_vit_tiny() -> RunConfig:
    """`climate_vit` with few samples and steps: takes seconds."""
    run = climate_vit()
    return replace(
        run,
        recipe="climate_vit_tiny",
        steps=60,
        checkpoint_every=30,
        evaluate_every=20,
        network=FieldVitNetwork(patch=12, width=32, layers=2, heads=2),
        data=ClimateData(limit=256),
        optimizer=replace(run.optimizer, warmup_steps=5),
    )


@recipe(source=_BENCH, size="NorESM2 by year, ViT 4x96, 96 patches", expected_time="half an hour")
def climatebench_vit() -> RunConfig:
    """From the emissions of a year to its climate, on ClimateBench files at data.path."""
    run = climate_vit()
    return replace(
        run,
        recipe="climatebench_vit",
        task=Regress(),
        steps=1500,
        batch_size=16,
        checkpoint_every=500,
        evaluate_every=100,
        network=FieldVitNetwork(patch=12, width=96, layers=4, heads=4),
        data=ClimateBenchData(),
    )


@recipe(source=_BENCH, size="64 years, ViT 2x32", expected_time="seconds")
def climatebench_vit_tiny() -> RunConfig:
    """`climatebench_vit` with few samples and steps: takes seconds."""
    run = climatebench_vit()
    return replace(
        run,
        recipe="climatebench_vit_tiny",
        steps=20,
        batch_size=8,
        checkpoint_every=10,
        evaluate_every=10,
        network=FieldVitNetwork(patch=12, width=32, layers=2, heads=2),
        data=ClimateBenchData(limit=64),
        optimizer=replace(run.optimizer, warmup_steps=2),
    )
