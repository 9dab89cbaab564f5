"""How good generated images are, in the eyes of a classifier that was trained here.

Shape letters: `N` images · `D` pixels of all channels · `K` features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odfa.arms import name_of
from odfa.data import Split, needs, quietly
from odfa.devices import check_name
from odfa.errors import ConfigError
from odfa.lab.wording import rule_of
from odfa.settings import SettingError, Settings, require, require_counts
from odfa.store import LoadedRun, load_run
from odfa.store.placed import loading_on
from odfa.tasks.diffusion.samples import Sampler, check_drawing, generate
from odfa.tasks.vision.classify import Classify
from odfa.tasks.vision.fashion import FashionData

_BATCH = 500
_LEAST, _MOST = 100, 100_000


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(Settings):
    """The judge, and how the images that it is shown are drawn; equal seeds start from equal noise."""

    by: Path | None = None
    """Run folder of a fashion classifier, the judge; it has to be given."""
    count: int = 2000
    """Images of each run."""
    guidance: float = 1.0
    """Weight of the class (arXiv 2207.12598): 1 asks for the class alone, more for what distinguishes it."""
    sampler: Sampler = "ddim"
    """Scheduler of the diffusers library."""
    steps: int = 50
    """Denoising steps."""
    seed: int = 0
    """Key of the noise."""
    device: str | None = None
    """Where models and judge compute: cpu, cuda, cuda:N, mps, xpu, xpu:N or auto; none: each where its run was
    trained."""

    def __post_init__(self) -> None:
        if self.device is not None:
            check_name(self.device)
        require(_LEAST <= self.count <= _MOST, "count", f"{_LEAST} to {_MOST} images", self.count)
        require_counts(self, "steps")
        check_drawing(self.guidance, self.seed)

    def judge_dir(self) -> Path:
        """The run folder of the judge.

        Raises:
            ConfigError: none is given.
        """
        if self.by is None:
            told = "expected the run folder of a fashion classifier, such as by=runs/fashion_cnn-bp-seed0, got none"
            raise SettingError("by", told)
        return self.by


def judge(run_dirs: Sequence[Path | str], settings: JudgeSettings) -> dict[str, Any]:
    """Fréchet distance to the test images, class agreement and nearest training neighbours of `count` images per run.

        Fréchet distance = |m - m'|² + tr(S + S' - 2 (S S')^½)   of the features in front of the classifier's head
        agreement = share of the images that the classifier takes for the class that was asked for
        neighbour = median distance to the nearest training image, over that of as many test images; well below 1 means
        that training images are repeated

    `real` holds distance and agreement of training images in place of generated ones: as good as so many can be.

    Raises:
        RunFolderError: not a run folder. CheckpointError: no checkpoint, or one of another architecture.
        DataError: the judge's data are missing or have changed.
        ConfigError: a run that draws no images, no judge, or one that is no classifier of these images; a device that
            this machine lacks.
    """
    with loading_on(settings.device, [settings.judge_dir(), *run_dirs]):
        return _judged(run_dirs, settings)


def _judged(run_dirs: Sequence[Path | str], settings: JudgeSettings) -> dict[str, Any]:
    """The figures of each run, and of training images."""
    classifier = _Classifier(load_run(settings.judge_dir()))
    raw = classifier.run.config.data.load()
    classifier.run.kept.check(raw, classifier.run.path)
    splits = raw.centred()
    train, test = splits.train, splits.test
    classifier.scale_like(splits.train.x_ND)
    class_N = torch.arange(settings.count) % splits.num_classes
    seen = _Judge(classifier, train, test.head(settings.count))
    drawing: dict[str, Any] = {name: getattr(settings, name) for name in ("sampler", "steps", "guidance")}
    rows: list[dict[str, Any]] = []
    for run in map(load_run, run_dirs):
        classifier.check_size(run)
        images_ND = generate(run, class_N, seed=settings.seed, **drawing)
        rows.append({"run": str(run.path), "arm": name_of(run.config), "rule": rule_of(run.config)})
        rows[-1] |= seen.figures(images_ND, class_N)
    drawn = train.head(settings.count)
    real = {**seen.figures(drawn.x_ND, drawn.y_N), "neighbour": None}  # they are among themselves
    return {"judge": str(settings.by), "count": settings.count, **drawing, "real": real, "runs": rows}


class _Classifier(nn.Module):
    """Features in front of the head, and logits, of images in [-1, 1]."""

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        head = getattr(run.model, "head", None)
        of_garments = isinstance(run.config.task, Classify) and isinstance(run.config.data, FashionData)
        if not (of_garments and isinstance(head, nn.Linear)):
            raise ConfigError(f"{run.path} is a run of {run.config.recipe}: expected a fashion classifier as the judge")
        self.run, self.model, self.head = run, run.model, head
        self.num_features = head.in_features
        self.mean, self.std = 0.0, 1.0

    def check_size(self, run: LoadedRun) -> None:
        """Refuse images of another size than the classifier's."""
        theirs, ours = (of.kept.shape.image for of in (run, self.run))
        if theirs != ours:
            raise ConfigError(f"{run.path} draws images of {theirs}, its judge {self.run.path} knows {ours}")

    def scale_like(self, x_ND: Tensor) -> None:
        """The classifier was trained on standardised images: on these."""
        self.mean, self.std = x_ND.mean(dtype=torch.float64).item(), x_ND.double().std().item()

    @torch.no_grad()
    def forward(self, x_ND: Tensor) -> Tensor:
        """What the classifier's head gets for images (N, D): features (N, K)."""
        found: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
        try:
            with self.run.computing():
                for x_nD in torch.split(x_ND, _BATCH):
                    self.model((x_nD - self.mean) / self.std)
        finally:
            handle.remove()
        return torch.cat(found).cpu().float()

    @torch.no_grad()
    def classes(self, x_ND: Tensor) -> Tensor:
        """The class that each image is taken for."""
        features_NK = self(x_ND).to(self.head.weight)
        with self.run.computing():
            logits_NK: Tensor = self.head(features_NK)
        return logits_NK.argmax(dim=1).cpu()


class _Judge:
    """The figures of images, against features of the test images and pixels of the training images."""

    def __init__(self, classifier: _Classifier, train: Split, test: Split) -> None:
        with needs("torchmetrics", "judges of images"), quietly():
            from torchmetrics.image.fid import FrechetInceptionDistance
        self.classifier, self.train = classifier, train
        self.distance = FrechetInceptionDistance(feature=classifier, reset_real_features=False)
        self.distance.update(test.x_ND, real=True)
        self.usual = nearest(test.x_ND, train.x_ND)

    def figures(self, images_ND: Tensor, class_N: Tensor) -> dict[str, float]:
        """Fréchet distance, agreement and neighbour distance of these images."""
        self.distance.reset()
        self.distance.update(images_ND, real=False)
        seen_N = self.classifier.classes(images_ND)
        return {
            "frechet": float(self.distance.compute()),
            "agreement": (seen_N == class_N).double().mean().item(),
            "neighbour": nearest(images_ND, self.train.x_ND) / self.usual,
        }


def nearest(x_ND: Tensor, among_MD: Tensor) -> float:
    """Median over `x_ND` of the Euclidean distance to the nearest of `among_MD`."""
    return float(torch.cat([torch.cdist(x_nD, among_MD).amin(dim=1) for x_nD in torch.split(x_ND, _BATCH)]).median())
