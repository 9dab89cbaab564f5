"""Images that a denoiser draws out of noise, by the schedulers of the diffusers library.

Shape letters: `N` images · `D` pixels of all channels · `C H W` channels, height, width · `R` runs.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from odfa.arms import name_of
from odfa.data import needs, quietly
from odfa.errors import ConfigError
from odfa.keys import mix
from odfa.lab.canvas import new_figure, save_figure
from odfa.lab.samples import DrawnSamples, Samples
from odfa.settings import SEEDS, SEEDS_TOLD, SettingError, require, require_counts
from odfa.store import LoadedRun, load_run
from odfa.tasks.diffusion.denoiser import Denoiser
from odfa.tasks.diffusion.diffuse import Diffuse, ddpm_scheduler
from odfa.tasks.vision.fashion import FASHION_CLASSES

Sampler = Literal["ddim", "ddpm"]
_NOISE_KEY = 0x6E4E_0001
_BATCH = 250
MOST_PER_CLASS, MOST_GUIDANCE = 100, 100.0


def class_numbers(words: Sequence[str]) -> list[int]:
    """Numbers of the classes named, each by name or number.

    Raises:
        SettingError: there is no such class; the message gives the nearest names.
    """
    numbers = []
    for word in words:
        given = word.strip().lower()
        if given.isascii() and given.isdigit() and int(given) < len(FASHION_CLASSES):
            numbers.append(int(given))
        elif given in FASHION_CLASSES:
            numbers.append(FASHION_CLASSES.index(given))
        else:
            near = difflib.get_close_matches(given, FASHION_CLASSES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected 0 to 9 or {', '.join(FASHION_CLASSES)}"
            raise SettingError("classes", f"there is no class {word.strip()!r}; {hint}")
    return numbers


def generate(
    run: LoadedRun,
    class_N: Tensor,
    *,
    sampler: Sampler = "ddim",
    steps: int = 50,
    guidance: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Images x_ND in [-1, 1] of these classes; equal seeds start from equal noise, whatever the run.

    With `guidance` w the prediction is f(x, none) + w (f(x, class) - f(x, none)) (arXiv 2207.12598); 1 asks for the
    class alone.

    Raises:
        ConfigError: the run's model draws no images, more steps than its diffusion has, or a number out of range.
    """
    check_drawing(guidance, seed)
    model, task = run.model, run.config.task
    if not (isinstance(model, Denoiser) and isinstance(task, Diffuse)):
        raise ConfigError(f"{run.path} is a run of {run.config.recipe}, which draws no images; name diffusion runs")
    if not 0 < steps <= task.timesteps:
        raise ConfigError(f"steps: expected 1 to {task.timesteps}, got {steps}")
    # the caller's random numbers go on as if nothing was drawn
    with torch.random.fork_rng(devices=[]), torch.no_grad(), run.computing():
        torch.manual_seed(mix(_NOISE_KEY, seed))
        parts = torch.split(class_N, _BATCH)
        return torch.cat([_denoised(model, part_N, _scheduler(task, sampler, steps), guidance) for part_N in parts])


def check_drawing(guidance: float, seed: int) -> None:
    """Refuse what would draw nothing but noise, before a run is loaded.

    Raises:
        ConfigError: a number out of range.
    """
    require(0 <= guidance <= MOST_GUIDANCE, "guidance", f"a weight from 0 to {MOST_GUIDANCE:g}", guidance)
    require(seed in SEEDS, "seed", SEEDS_TOLD, seed)


def _denoised(model: Denoiser, c_N: Tensor, scheduler: Any, guidance: float) -> Tensor:
    """Images x_ND in [-1, 1] of the classes c_N, from noise of torch's current random state."""
    x_ND = torch.randn(len(c_N), model.image[0] * model.image[1] * model.image[2])
    none_N = torch.full_like(c_N, model.num_classes)
    for t in scheduler.timesteps:
        noisy_ND, t_N = scheduler.scale_model_input(x_ND, t), t.expand(len(c_N))
        predicted_ND = model(noisy_ND, t_N, c_N).to(x_ND.dtype)
        if guidance != 1:  # at 1 the prediction without a class has no weight: half the work
            free_ND = model(noisy_ND, t_N, none_N).to(x_ND.dtype)
            predicted_ND = free_ND + guidance * (predicted_ND - free_ND)
        x_ND = scheduler.step(predicted_ND, t, x_ND).prev_sample
    return x_ND.clamp(-1, 1)


def _scheduler(task: Diffuse, sampler: Sampler, steps: int) -> Any:
    with needs("diffusers", "diffusion models"), quietly():
        from diffusers import DDIMScheduler, DDPMScheduler
    made: Any = DDIMScheduler if sampler == "ddim" else DDPMScheduler
    # trailing: the first step starts from the noisiest image, which is what pure noise stands for
    scheduler = made.from_config(ddpm_scheduler(task).config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    return scheduler


@dataclass(frozen=True, kw_only=True)
class ImageSamples(DrawnSamples, kind="images"):
    """A grid of images for each run, a row for each class; equal seeds start from equal noise."""

    classes: tuple[str, ...] | None = None
    """Classes by name or number; none: all."""
    count: int = 3
    """Images of each class."""
    guidance: float = 1.0
    """Weight of the class (arXiv 2207.12598): 1 asks for the class alone, more for what distinguishes it."""
    sampler: Sampler = "ddim"
    """Scheduler of the diffusers library."""
    steps: int = 50
    """Denoising steps."""
    seed: int = 0
    """Key of the noise."""

    def __post_init__(self) -> None:
        require(0 < self.count <= MOST_PER_CLASS, "count", f"1 to {MOST_PER_CLASS} images per class", self.count)
        require(self.classes is None or len(self.classes) > 0, "classes", "one or more", self.classes)
        require_counts(self, "steps")
        check_drawing(self.guidance, self.seed)
        class_numbers(self.classes or ())

    def make(self, run_dirs: Sequence[Path | str]) -> Samples:
        """Draw the grids side by side.

        Raises:
            RunFolderError, CheckpointError: see `load_run`.
            ConfigError: no `out`, a run that draws no images, or more steps than its diffusion has.
        """
        path = self.destination()
        classes = list(range(len(FASHION_CLASSES))) if self.classes is None else class_numbers(self.classes)
        runs = [load_run(run_dir) for run_dir in run_dirs]
        class_N = torch.tensor(classes).repeat_interleave(self.count)
        images_RND = [
            generate(run, class_N, sampler=self.sampler, steps=self.steps, guidance=self.guidance, seed=self.seed)
            for run in runs
        ]
        _draw(runs, images_RND, classes, self.count, path)
        made = {
            "figure": str(path),
            "classes": [FASHION_CLASSES[number] for number in classes],
            "count": self.count,
            "guidance": self.guidance,
            "sampler": self.sampler,
            "steps": self.steps,
            "runs": [{"run": str(run.path), "arm": name_of(run.config)} for run in runs],
        }
        return Samples(json=made, text=f"figure: {path}")


def _draw(runs: Sequence[LoadedRun], images_RND: list[Tensor], classes: list[int], count: int, path: Path) -> None:
    """Grids side by side, each under the arm of its run; colours are drawn as grey."""
    figure = new_figure(len(runs) * (0.36 * count + 0.9), 0.36 * len(classes) + 0.5)
    axes_R = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run, images_ND in zip(axes_R, runs, images_RND, strict=True):
        assert isinstance(run.model, Denoiser)
        channels, height, width = run.model.image
        tiles = images_ND.view(len(classes), count, channels, height, width).mean(dim=2)
        image = tiles.permute(0, 2, 1, 3).reshape(len(classes) * height, -1).numpy()
        axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
        axes.set_title(name_of(run.config), fontsize=9)
        axes.set_yticks([(row + 0.5) * height for row in range(len(classes))], [FASHION_CLASSES[c] for c in classes])
        axes.tick_params(labelsize=7, length=0)
        axes.set_xticks([])
    save_figure(figure, path, dpi=150)
