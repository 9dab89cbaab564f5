"""Vision, climate and diffusion runs end to end: resumed, measured, sampled, judged, drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tests.cut import train_and_cut
from tests.garments import write_images

from odfa import data, load_run, recipes, train
from odfa.errors import ConfigError
from odfa.lab import sample
from odfa.lab.angles import AlignSettings, align, draw_alignment
from odfa.lab.image_judge import JudgeSettings, _Classifier, _Judge, judge, nearest
from odfa.project import HadamardSettings
from odfa.store import RunResult
from odfa.store.folder import read_lines
from odfa.tasks.climate.samples import MapSamples
from odfa.tasks.diffusion.denoiser import Denoiser, DitNetwork
from odfa.tasks.diffusion.diffuse import Diffuse, corrupted, ddpm_scheduler
from odfa.tasks.diffusion.samples import ImageSamples, class_numbers, generate
from odfa.tasks.vision.fashion import load_fashion

SMALL = {"steps": 4, "batch_size": 8, "log_every": 1, "checkpoint_every": 2, "evaluate_every": 2, "tensorboard": False}
CASES = [
    ("fashion_vit_tiny", "odfa:aligned"),
    ("fashion_vit_tiny", "bp"),
    ("fashion_cnn_tiny", "odfa:random"),
    ("climate_vit_tiny", "odfa:aligned"),
    ("climate_vit_tiny", "shallow"),
    ("fashion_diffusion_tiny", "odfa:aligned"),
    ("fashion_diffusion_tiny", "bp"),
    ("fashion_unet_tiny", "dfa:random"),
]


def _config(garments: str, name: str, arm: str, **changes):
    config = replace(recipes.get(name, arm), **(SMALL | changes))
    small = {"limit": 24} if name.startswith("climate") else {"limit": 24, "validation": 8, "path": garments}
    projection = HadamardSettings() if "unet" in name else config.projection
    return replace(config, data=replace(config.data, **small), projection=projection)


@pytest.fixture(scope="module")
def garments(tmp_path_factory) -> str:
    """A small folder of images."""
    return write_images(tmp_path_factory.mktemp("garments"))


@pytest.mark.parametrize(("name", "arm"), CASES)
def test_a_run_cut_in_two_equals_a_whole_one(tmp_path, garments, name: str, arm: str) -> None:
    measured = 2 if arm.startswith(("dfa", "odfa")) else None
    augmented = {"shift": 1, "flip": True} if name.startswith("fashion") else {}
    config = _config(garments, name, arm, align_every=measured)
    config = replace(config, data=replace(config.data, **augmented))
    whole = train.run(config, tmp_path / "whole", progress=False)
    train_and_cut(config, tmp_path / "cut", after=3)
    again = train.resume(tmp_path / "cut", progress=False)
    assert again.metric == whole.metric
    assert (tmp_path / "cut/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    rows = [row for row in read_lines(tmp_path / "whole/metrics.jsonl") if "alignment" in row]
    assert [row["step"] for row in rows] == ([2, 4] if measured else [])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, garments):
    """A small trained run of each task, made once."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "bp": _config(garments, "fashion_diffusion_tiny", "bp"),
        "odfa": _config(garments, "fashion_diffusion_tiny", "odfa:aligned", align_every=2),
        "judge": _config(garments, "fashion_cnn_tiny", "bp"),
        "digits": replace(recipes.get("digits_tiny"), steps=2, tensorboard=False),
        "climate": _config(garments, "climate_vit_tiny", "odfa:aligned"),
        "other climate": replace(
            _config(garments, "climate_vit_tiny", "bp"),
            data=replace(recipes.get("climate_vit_tiny").data, held_out="E1", limit=24),
        ),
    }
    for name, config in made.items():
        train.run(config, folder / name, progress=False)
    return {name: folder / name for name in made}


def test_the_angle_of_the_last_step_is_what_align_says(runs, tmp_path) -> None:
    (last,) = [r for r in read_lines(runs["odfa"] / "metrics.jsonl") if "alignment" in r and r["step"] == 4]
    said = {block["name"]: block["cosine"] for block in align(runs["odfa"])["blocks"]}
    assert set(said) == set(last["alignment"])  # the twin's noise differs: its clock has moved on
    assert all(abs(said[name] - last["alignment"][name]) < 0.2 for name in said)
    drawn = align(runs["odfa"], AlignSettings(out=tmp_path / "angles.png"))
    assert {block["name"]: block["cosine"] for block in drawn["blocks"]} == said
    assert drawn["figure"] == str(tmp_path / "angles.png")
    assert (tmp_path / "angles.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="align_every=STEPS"):
        draw_alignment(runs["climate"], tmp_path / "none.png")


@pytest.mark.parametrize(("arm", "rule"), [("bp", "backprop"), ("shallow", "shallow")])
def test_angles_are_refused_where_there_are_none(garments, arm: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rf"^align_every: expected none, as rule={rule} feeds no block, got 2"):
        _config(garments, "climate_vit_tiny", arm, align_every=2)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
def test_the_loss_is_the_mean_square_of_what_is_to_be_predicted(prediction: str) -> None:
    shape = data.DataShape(
        num_features=784, num_classes=10, num_train=9, num_validation=9, num_test=9, image=(1, 28, 28)
    )
    torch.manual_seed(0)
    model = DitNetwork(patch=7, width=12, layers=1, heads=2).build(shape)
    x_ND, noise_ND = torch.randn(5, 784), torch.randn(5, 784)
    t_N, c_N = torch.tensor([0, 10, 500, 900, 999]), torch.arange(5)
    # cosine schedule of arXiv 2102.09672, in float64
    angle = lambda t: np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
    kept = np.cumprod([1 - min(1 - angle(k + 1) / angle(k), 0.999) for k in range(1000)])[t_N.numpy()]
    root_N1, rest_N1 = (torch.tensor(np.sqrt(part))[:, None] for part in (kept, 1 - kept))
    noisy_ND = root_N1 * x_ND + rest_N1 * noise_ND
    wanted_ND = {
        "v_prediction": root_N1 * noise_ND - rest_N1 * x_ND,
        "epsilon": noise_ND.double(),
        "sample": x_ND.double(),
    }[prediction]
    naive = (model(noisy_ND.float(), t_N, c_N).double() - wanted_ND).square().mean().item()
    assert Diffuse(prediction=prediction).error(model, x_ND, noise_ND, t_N, c_N).item() == pytest.approx(
        naive, rel=1e-4
    )


def test_figures_of_a_denoiser_do_not_depend_on_the_random_state(runs) -> None:
    run = load_run(runs["bp"])
    task = run.config.task
    part = task.load(run.config.data).validation
    figures = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        figures.append(task.evaluate(run.model, part))
    assert figures[0] == figures[1]
    assert figures[0] == RunResult.from_json(run.result.to_json()).validation
    steps = torch.cat([t_N for _, _, t_N in corrupted(part, 1000)])
    assert sorted(steps.tolist()) == [int((k + 0.5) / len(part) * 1000) for k in range(len(part))]


class _Oracle(Denoiser):
    """A denoiser that knows the image of each class: velocity of the noisy image towards it."""

    def __init__(self, run, known_CD: torch.Tensor) -> None:
        super().__init__(torch.nn.Identity(), run.kept.shape)
        self.task = run.config.task
        self.known_CD = torch.cat([known_CD, torch.zeros(1, 784)])

    def forward(self, x_ND, t_N, c_N):
        kept_N1 = ddpm_scheduler(self.task).alphas_cumprod[t_N][:, None]
        x0_ND = self.known_CD[c_N]
        noise_ND = (x_ND - kept_N1.sqrt() * x0_ND) / (1 - kept_N1).sqrt()
        return kept_N1.sqrt() * noise_ND - (1 - kept_N1).sqrt() * x0_ND


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 10), ("ddim", 50), ("ddpm", 100)])
def test_a_denoiser_that_knows_the_image_draws_it(runs, sampler: str, steps: int) -> None:
    run = load_run(runs["bp"])
    known_CD = torch.rand(10, 784) * 1.8 - 0.9
    oracle = replace(run, model=_Oracle(run, known_CD))
    class_N = torch.tensor([3, 0, 9, 3])
    drawn_ND = generate(oracle, class_N, sampler=sampler, steps=steps)
    assert torch.allclose(drawn_ND, known_CD[class_N], atol=0.02)


def test_guidance_goes_on_from_no_class_through_the_class(runs) -> None:
    """The image of no class is zero, so guidance w draws w times the image."""
    run = load_run(runs["bp"])
    known_CD = (torch.rand(10, 784) * 1.8 - 0.9) / 3
    oracle = replace(run, model=_Oracle(run, known_CD))
    drawn_ND = generate(oracle, torch.tensor([2, 7]), steps=40, guidance=2.0)
    assert torch.allclose(drawn_ND, 2 * known_CD[[2, 7]], atol=0.03)


def test_equal_seeds_draw_equal_images_and_leave_the_random_state_alone(runs) -> None:
    run, class_N = load_run(runs["odfa"]), torch.tensor([1, 2])
    before = torch.random.get_rng_state()
    first, again = (generate(run, class_N, steps=3, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, generate(run, class_N, steps=3, seed=6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.abs().max() <= 1


def test_grids_and_maps_are_drawn(runs, tmp_path) -> None:
    drawn = ImageSamples(out=tmp_path / "grid.png", classes=("1", "ankle boot"), count=2, steps=2)
    result = drawn.make([runs["bp"], runs["odfa"]]).json
    assert result["classes"] == ["trouser", "ankle boot"]
    assert [run["arm"] for run in result["runs"]] == ["bp", "odfa"]
    maps = MapSamples(out=tmp_path / "maps.png", sample=3).make([runs["climate"]]).json
    run = load_run(runs["climate"])
    test = run.config.task.load(run.config.data).test
    with torch.no_grad():
        square_G = (run.model(test.x_ND[3:4]) - test.y_N[3:4]).double().square()[0] * test.weight_G
    assert maps["runs"][0]["rmse"] == pytest.approx(square_G.mean().sqrt().item() * test.unit, rel=1e-5)
    assert maps["sample"] == test.names[3]
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("grid", "maps"))


def test_the_judge_against_the_definition(runs, garments) -> None:
    result = judge([runs["bp"], runs["odfa"]], JudgeSettings(by=runs["judge"], count=100, steps=2))
    splits = load_fashion(garments, validation=8).limited(24).centred()
    classifier = _Classifier(load_run(runs["judge"]))
    classifier.scale_like(splits.train.x_ND)
    images_ND = generate(load_run(runs["bp"]), torch.arange(100) % 10, steps=2)
    real_NK, drawn_NK = (classifier(x_ND).double().numpy() for x_ND in (splits.test.x_ND, images_ND))
    gap_K = real_NK.mean(0) - drawn_NK.mean(0)
    s, t = np.cov(real_NK.T), np.cov(drawn_NK.T)
    wanted = gap_K @ gap_K + np.trace(s + t - 2 * np.real(sqrtm(s @ t)))
    row = result["runs"][0]
    assert row["frechet"] == pytest.approx(wanted, rel=1e-3)
    standard = (images_ND - splits.train.x_ND.mean()) / splits.train.x_ND.std()
    with torch.no_grad():
        right = load_run(runs["judge"]).model(standard).argmax(1) == torch.arange(100) % 10
    assert row["agreement"] == pytest.approx(right.double().mean().item(), abs=0.021)
    naive = np.median([min(np.linalg.norm(x - y) for y in splits.train.x_ND.numpy()) for x in images_ND.numpy()])
    usual = nearest(splits.test.x_ND, splits.train.x_ND)
    assert row["neighbour"] == pytest.approx(naive / usual, rel=1e-3)


def _judged(runs, run: str, *, by: str, count: int = 100):
    return judge([runs[run]], JudgeSettings(by=runs[by], count=count))


def test_training_images_are_found_out_and_test_images_have_no_distance_to_themselves(runs, garments) -> None:
    splits = load_fashion(garments, validation=8).limited(24).centred()
    classifier = _Classifier(load_run(runs["judge"]))
    seen = _Judge(classifier, splits.train, splits.test)
    assert seen.figures(splits.train.x_ND, splits.train.y_N)["neighbour"] < 0.01
    assert seen.figures(splits.test.x_ND, splits.test.y_N)["frechet"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs, out: ImageSamples(out=out).make([runs["judge"]]), "draws no images; name diffusion runs"),
        (
            lambda runs, out: ImageSamples(out=out, count=0),
            "count: expected 1 to 100 images per class, got 0",
        ),
        (lambda runs, out: ImageSamples(out=out, steps=1001).make([runs["bp"]]), "steps: expected 1 to 1000, got 1001"),
        (lambda runs, out: ImageSamples().make([runs["bp"]]), "out: expected a file to draw into"),
        (lambda runs, out: MapSamples(out=out.parent).make([runs["climate"]]), "out: expected a file, .* is a folder"),
        (lambda runs, out: MapSamples(out=out.with_suffix(".xyz")).make([runs["bp"]]), "ends in .png, .pdf, .svg"),
        (lambda runs, out: ImageSamples(out=out, classes=("sandals",)), "classes: there is no class 'sandals'"),
        (lambda runs, out: sample([runs["bp"], runs["climate"]]), "expected task=diffusion .* got task=regress"),
        (
            lambda runs, out: sample([runs["judge"]]),
            "task=classify offers no samples; name runs .* diffusion, language",
        ),
        (lambda runs, out: _judged(runs, "bp", by="climate"), "expected a fashion classifier as the judge"),
        (lambda runs, out: _judged(runs, "bp", by="judge", count=5), "count: expected 100 to 100000 images"),
        (lambda runs, out: judge([runs["bp"]], JudgeSettings()), "by: expected the run folder of a fashion classifier"),
        (lambda runs, out: _judged(runs, "judge", by="judge"), "draws no images"),
        (lambda runs, out: _judged(runs, "bp", by="digits"), "expected a fashion classifier"),
        (lambda runs, out: MapSamples(out=out).make([runs["bp"]]), "projects no maps; name climate runs"),
        (lambda runs, out: MapSamples(out=out, sample=24).make([runs["climate"]]), "sample: expected 0 to 23, got 24"),
        (lambda runs, out: MapSamples(out=out).make([runs["climate"], runs["other climate"]]), "expected the data of"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(runs, tmp_path, call, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call(runs, tmp_path / "out.png")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.png").exists()


def test_classes_by_name_and_number() -> None:
    assert class_numbers(["3", " Bag", "ankle boot"]) == [3, 8, 9]
    with pytest.raises(ConfigError, match="there is no class 'sandals'; did you mean sandal"):
        class_numbers(["sandals"])
    with pytest.raises(ConfigError, match="there is no class '10'; expected 0 to 9 or t-shirt"):
        class_numbers(["10"])
