"""What a run computes, leaves behind, and costs."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odfa import data, recipes, settings, train
from odfa.flow import Light
from odfa.session import AdamSettings, RunConfig, Session, build, dry_run
from odfa.store import RunResult, load_run
from odfa.tasks.vision.classify import Classify

Quick = Callable[..., RunConfig]


@pytest.mark.parametrize("clip", ["clip_norm", "clip_each"])
def test_bp_equals_a_plain_loop_written_out(tmp_path: Path, quick: Quick, clip: str) -> None:
    """Thirty lines of ordinary PyTorch, sharing nothing with the loop but the initial weights and the data."""
    moves = AdamSettings(learning_rate=0.01, warmup_steps=3, clip_norm=None)
    config = replace(quick("bp"), optimizer=replace(moves, **{clip: 0.5}))
    train.run(config, tmp_path / "run", progress=False)
    with torch.random.fork_rng(devices=[]):
        start = build(config)
    splits, model = start.splits, start.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    losses, step = [], 0
    for epoch in range(3):
        order_N = data.order(240, seed=0, epoch=epoch)
        for batch in range(6):
            index_N = order_N[40 * batch : 40 * (batch + 1)]
            share = max(0, step - 3) / (18 - 3)
            cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2
            optimizer.param_groups[0]["lr"] = 0.01 * min(1, (step + 1) / 4) * cosine
            optimizer.zero_grad()
            logits_NC = model.head(
                torch.tanh(model.blocks[1][0](torch.tanh(model.blocks[0][0](splits.train.x_ND[index_N]))))
            )
            loss = -logits_NC.log_softmax(1)[torch.arange(40), splits.train.y_N[index_N]].mean()
            loss.backward()
            for clipped in [list(model.parameters())] if clip == "clip_norm" else [[p] for p in model.parameters()]:
                norm = sum(float((p.grad**2).sum()) for p in clipped) ** 0.5
                for p in clipped:
                    p.grad *= min(1.0, 0.5 / norm)
            optimizer.step()
            losses.append(loss.item())
            step += 1
    loaded = load_run(tmp_path / "run")
    assert [row["loss"] for row in loaded.metrics if "loss" in row] == pytest.approx(losses, rel=1e-5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        right = (loaded.model(splits.test.x_ND).argmax(1) == splits.test.y_N).double().mean().item()
    assert loaded.result is not None
    assert loaded.result.metric == {"name": "accuracy", "better": "higher", "value": pytest.approx(right)}


def test_every_sample_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick: Quick) -> None:
    from odfa.train import loop

    seen: list[list[tuple[float, ...]]] = [[], [], []]
    real = loop.train_step

    def record(session: Session, batch: data.Split) -> dict[str, object]:
        seen[session.step // 6] += [tuple(row) for row in batch.x_ND.tolist()]
        return real(session, batch)

    monkeypatch.setattr(loop, "train_step", record)
    config = quick("bp")
    train.run(config, tmp_path / "run", progress=False)
    rows = sorted(tuple(row) for row in config.task.load(config.data).train.x_ND.tolist())
    assert [sorted(epoch) for epoch in seen] == [rows, rows, rows]
    assert seen[0] != seen[1]


@pytest.mark.parametrize(("arm", "at_least"), [("bp", 0.88), ("dfa", 0.85), ("odfa", 0.8)])
def test_digits_tiny_learns(tmp_path: Path, arm: str, at_least: float) -> None:
    result = train.run(recipes.get("digits_tiny", arm), tmp_path / "run", progress=False)
    assert result.metric["value"] > at_least


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_the_learning_rate_rises_then_falls(schedule: str, warmup: int) -> None:
    falls = ["final_share=0.2"] if schedule == "cosine" else []
    words = [f"schedule={schedule}", f"warmup_steps={warmup}", *falls]
    config = settings.apply(AdamSettings(learning_rate=0.1), words)
    rates = [config.rate(step, 100) for step in range(101)]
    assert rates[warmup] == pytest.approx(0.1) == max(rates)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[100] == pytest.approx(0.02 if schedule == "cosine" else 0.1)
    assert min(rates) > 0


def test_the_folder_explains_itself(tmp_path: Path, quick: Quick) -> None:
    config = replace(quick("odfa"), tensorboard=True)
    result = train.run(config, tmp_path / "run", progress=False)
    folder = tmp_path / "run"
    assert settings.from_dict(json.loads((folder / "config.json").read_text()), RunConfig) == config
    session = json.loads((folder / "environment.json").read_text())["sessions"][0]
    assert session["packages"]["torch"] == torch.__version__
    assert session["threads"] == config.threads == 1
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps, validations = [row for row in metrics if "loss" in row], [row for row in metrics if "validation_loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 19))
    assert [row["step"] for row in validations] == [6, 12, 18]
    assert set(metrics[-1]) == {"step", "epoch", "test_loss", "test_accuracy"}
    assert metrics[-1]["test_accuracy"] == result.metric["value"]
    assert set(steps[0]["signal_norms"]) == {"blocks.0", "blocks.1"}
    assert 0 < steps[0]["density"] < 1
    calibration = 2 * 8 * 2 * 4  # eight witnesses, shown twice; no look at them is due within 720 vectors
    assert [row["light_frames"] for row in steps] == [calibration + 40 * 2 * 4 * step for step in range(1, 19)]
    assert steps[-1]["witness_correlation"] > 0.99
    assert not any("second" in key for row in metrics for key in row)
    assert RunResult.from_json(json.loads((folder / "result.json").read_text())) == result
    assert json.loads((folder / "status.json").read_text()) == {"status": "complete", "step": 18, "reason": None}


def test_tensorboard_reads_the_events(tmp_path: Path, quick: Quick) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    train.run(replace(quick("dfa"), tensorboard=True), tmp_path / "run", progress=False)
    (file,) = (tmp_path / "run/tb").iterdir()
    events = [Event.FromString(raw) for raw in RawEventFileLoader(str(file)).Load()]
    curve = {event.step: value.simple_value for event in events for value in event.summary.value if value.tag == "loss"}
    rows = [row for row in load_run(tmp_path / "run").metrics if "loss" in row]
    assert curve == pytest.approx({row["step"]: row["loss"] for row in rows})
    tags = {value.tag for event in events for value in event.summary.value}
    assert {"signal_norms/blocks.0", "validation_accuracy", "learning_rate"} <= tags


@pytest.mark.parametrize(
    ("arm", "rule"),
    [("bp", "random"), ("dfa", "random"), ("odfa", "random"), ("odfa", "aligned"), ("odfa", "electronic")],
)
def test_a_dry_run_tells_what_the_run_takes(tmp_path: Path, quick: Quick, arm: str, rule: str) -> None:
    config = quick(arm, rule=rule)
    plan, result = dry_run(config), train.run(config, tmp_path / "run", progress=False)
    assert plan["parameters"] == result.parameters == (64 + 1) * 24 + (24 + 1) * 24 + (24 + 1) * 10
    assert plan["steps"] == result.steps
    assert plan["light"] == pytest.approx({key: result.light[key] for key in ("frames", "seconds", "joules")})
    memory = plan["memory_bytes"]
    assert memory["weights"] == memory["gradients"] == memory["optimizer"] / 2 == 4 * result.parameters
    assert memory["data"] == (4 * 64 + 8) * (240 + 200 + 240)
    assert memory["activations"] == 4 * 40 * (64 + 4 * 24 + 10)
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")


@pytest.mark.parametrize(("rule", "rank"), [("aligned", 1), ("electronic", 1)])
def test_the_residual_rules_run_as_shipped(tmp_path: Path, rule: str, rank: int) -> None:
    config = replace(recipes.get("digits_tiny", f"odfa:{rule}"), epochs=1)
    assert config.rule.rank_of(num_outputs=10, width=64) == rank
    plan, result = dry_run(config), train.run(config, tmp_path / "run", progress=False)
    assert plan["light"] == {key: result.light[key] for key in ("frames", "seconds", "joules")}


def test_the_default_rank_is_an_eighth_of_the_smaller_side() -> None:
    ranks = {
        rule: [recipes.get("digits", f"dfa:{rule}").rule.rank_of(num_outputs=n, width=128) for n in (7, 10, 64, 1000)]
        for rule in ("aligned", "electronic")
    }
    assert ranks == {"aligned": [0, 1, 8, 16], "electronic": [1, 1, 8, 16]}


def test_seconds_of_light_do_not_drift() -> None:
    light, step = Light(), Light(frames=400, seconds=400 / 2000, joules=400 / 2000 * 30)
    for _ in range(480):
        light += step
    assert light.seconds != 96.0
    assert light.figures() == {
        "frames": 192_000,
        "seconds": 96.0,
        "joules": 2880.0,
        "ops_peak": 0,
        "ops_useful": 0,
        "utilisation": 0,
    }


def test_each_epoch_is_validated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick) -> None:
    sizes, real = [], Classify.evaluate

    def count(task: Classify, model: torch.nn.Module, part: data.Split) -> dict[str, float]:
        sizes.append(len(part))
        return real(task, model, part)

    monkeypatch.setattr(Classify, "evaluate", count)
    train.run(quick("bp"), tmp_path / "run", progress=False)
    assert sizes == [200, 200, 200, 240]


def test_a_dry_run_allocates_nothing() -> None:
    config = recipes.get("digits")
    giant = replace(config, network=replace(config.network, widths=(200_000, 200_000, 200_000)))
    assert dry_run(giant)["memory_bytes"]["weights"] > 300e9


def test_progress_is_silent_without_a_terminal(tmp_path: Path, quick: Quick, capfd: pytest.CaptureFixture[str]) -> None:
    train.run(quick("bp"), tmp_path / "run", progress=True)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_loss_speed_and_light(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Quick, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    train.run(quick("odfa"), tmp_path / "run", progress=True)
    shown = capfd.readouterr().err
    assert "18/18" in shown
    assert all(word in shown for word in ("digits_tiny", "optical", "loss ", "steps/s", "light "))
