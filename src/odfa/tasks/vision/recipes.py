"""Recipes that classify images, with a multilayer perceptron, a Transformer and a convolutional network."""

from dataclasses import replace

from odfa.encode import StochasticSettings
from odfa.engine.rules import AlignedHead
from odfa.project import OpticalSettings
from odfa.recipes import recipe
from odfa.session import AdamSettings, RunConfig
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.cnn import CnnNetwork
from odfa.tasks.vision.digits import DigitsData
from odfa.tasks.vision.fashion import FashionData
from odfa.tasks.vision.mlp import MlpNetwork
from odfa.tasks.vision.vit import VitNetwork

_DIGITS = "scikit-learn load_digits"
_FASHION = "Debian package dataset-fashion-mnist, or idx files at data.path"


@recipe(source=_DIGITS, size="1,200 digits, 64-128x3-10", expected_time="1 to 4 seconds")
def digits() -> RunConfig:
    """Digits of 8 x 8 pixels with three tanh blocks: takes seconds on a laptop."""
    return RunConfig(
        recipe="digits",
        task=Classify(),
        epochs=20,
        batch_size=50,
        checkpoint_every=120,
        threads=1,
        network=MlpNetwork(widths=(128, 128, 128), activation="tanh"),
        data=DigitsData(validation=200),
        optimizer=AdamSettings(learning_rate=5e-3),
        projection=OpticalSettings(),
    )


@recipe(source=_DIGITS, size="300 digits, 64-64x2-10", expected_time="under a second")
def digits_tiny() -> RunConfig:
    """`digits` with a quarter of the data and a fifth of the steps: takes less than a second."""
    run = digits()
    return replace(
        run,
        recipe="digits_tiny",
        epochs=8,
        batch_size=25,
        log_every=4,
        checkpoint_every=12,
        network=MlpNetwork(widths=(64, 64), activation="tanh"),
        data=DigitsData(validation=200, limit=300),
        optimizer=replace(run.optimizer, learning_rate=1e-2),
    )


@recipe(source=_FASHION, size="55,000 images, 784-1024x3-10", expected_time="1 to 3 minutes")
def fashion_mlp() -> RunConfig:
    """Fashion-MNIST with three tanh blocks of width 1024, to be compared with backpropagation."""
    return RunConfig(
        recipe="fashion_mlp",
        task=Classify(),
        epochs=5,
        batch_size=128,
        log_every=20,
        network=MlpNetwork(widths=(1024, 1024, 1024), activation="tanh"),
        data=FashionData(validation=5000),
        optimizer=AdamSettings(learning_rate=1e-3, warmup_steps=50),
        projection=OpticalSettings(),
    )


@recipe(source=_FASHION, size="1,280 images, 784-64x3-10", expected_time="about a second")
def fashion_mlp_tiny() -> RunConfig:
    """`fashion_mlp` with narrow blocks and few images: takes a second."""
    run = fashion_mlp()
    return replace(
        run,
        recipe="fashion_mlp_tiny",
        epochs=6,
        batch_size=64,
        log_every=4,
        threads=1,
        network=MlpNetwork(widths=(64, 64, 64), activation="tanh"),
        data=FashionData(validation=5000, limit=1280),
        optimizer=replace(run.optimizer, learning_rate=3e-3, warmup_steps=0),
    )


@recipe(source=_FASHION, size="55,000 images, ViT 4x64, 16 patches", expected_time="5 minutes")
def fashion_vit() -> RunConfig:
    """Fashion-MNIST with a vision Transformer of sixteen patches, to be compared with backpropagation."""
    return RunConfig(
        recipe="fashion_vit",
        task=Classify(),
        epochs=10,
        batch_size=128,
        log_every=20,
        threads=1,
        network=VitNetwork(patch=7, width=64, layers=4, heads=4),
        data=FashionData(validation=5000),
        optimizer=AdamSettings(learning_rate=2e-3, warmup_steps=50, clip_norm=1.0),
        rule=AlignedHead(scale=1.0, rank=0, hops=1),
        projection=OpticalSettings(encoder=StochasticSettings(repeats=4)),
    )


@recipe(source=_FASHION, size="2,560 images, ViT 2x32", expected_time="seconds")
def fashion_vit_tiny() -> RunConfig:
    """`fashion_vit` with half the width, two blocks and few images: takes seconds."""
    run = fashion_vit()
    return replace(
        run,
        recipe="fashion_vit_tiny",
        epochs=4,
        batch_size=64,
        log_every=4,
        network=VitNetwork(patch=7, width=32, layers=2, heads=2),
        data=FashionData(validation=5000, limit=2560),
        optimizer=replace(run.optimizer, learning_rate=3e-3, warmup_steps=10),
    )


@recipe(source=_FASHION, size="55,000 images, residual CNN 3x48", expected_time="5 minutes")
def fashion_cnn() -> RunConfig:
    """Fashion-MNIST with a residual convolutional network of 7 x 7 places, where feedback alignment is weakest."""
    return RunConfig(
        recipe="fashion_cnn",
        task=Classify(),
        epochs=5,
        batch_size=128,
        log_every=20,
        threads=1,
        network=CnnNetwork(width=48, layers=3),
        data=FashionData(validation=5000),
        optimizer=AdamSettings(learning_rate=2e-3, warmup_steps=50, clip_norm=1.0),
        rule=AlignedHead(scale=1.0, rank=0, hops=1),
        projection=OpticalSettings(encoder=StochasticSettings(repeats=4)),
    )


@recipe(source=_FASHION, size="2,560 images, CNN 2x16", expected_time="seconds")
def fashion_cnn_tiny() -> RunConfig:
    """`fashion_cnn` with few channels and images: takes seconds."""
    run = fashion_cnn()
    return replace(
        run,
        recipe="fashion_cnn_tiny",
        epochs=4,
        batch_size=64,
        log_every=4,
        network=CnnNetwork(width=16, layers=2),
        data=FashionData(validation=5000, limit=2560),
        optimizer=replace(run.optimizer, warmup_steps=10),
    )
