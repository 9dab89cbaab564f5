"""The run: data → model → loss → feedback → optimiser, with a memory. The one place where the parts of `train` meet."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa import data
from odfa.errors import NonFinite, OdfaError
from odfa.flow import Light
from odfa.train import checkpoint
from odfa.train.build import Session, build, learning_rate, seed_step
from odfa.train.config import RunConfig
from odfa.train.environment import environment
from odfa.train.folder import RunFolder, check_owner, folder_errors, read_config, read_result
from odfa.train.interrupt import Interrupted, StopRequest
from odfa.train.monitor import ProgressBar, TensorBoard
from odfa.train.result import RunResult, peak_memory_bytes


def run(config: RunConfig, run_dir: Path | str, *, resume: bool = False, progress: bool = True) -> RunResult:
    """Train as `config` says and leave everything in `run_dir`.

    Equal configs give equal weights and an equal metrics.jsonl, and a resumed run equals one that was never
    interrupted, bit for bit on one machine with one number of threads. torch's random state and
    number of threads are left as found.

    Args:
        resume: go on from the newest checkpoint (or from the start if there is none yet); a complete run returns its
            result. Without it the folder must not hold a run.
        progress: show a progress bar if standard error is a terminal.

    Raises:
        ConfigError, MatchError, DataError, Incompatible: the config does not fit itself, model, data or device.
        RunFolderError: the folder cannot be used. CheckpointError: its checkpoint is corrupt or foreign.
        NonFinite: a loss, gradient or feedback was not finite; the optimiser has not moved.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    path = Path(run_dir)
    check_owner(path, config, resume=resume)
    finished = read_result(path)
    if finished is not None:
        return RunResult.from_json(finished)
    with torch.random.fork_rng(devices=[]), _threads(config.threads):
        session = build(config)  # before the folder is made: a config that cannot run leaves nothing behind
        with RunFolder(path, config, resume=resume) as folder, _recorded_failure(folder, session):
            _restore(session, folder)
            folder.add_session(environment())
            folder.set_status("running", step=session.step)
            _train(session, folder, progress)
            return _finish(session, folder)


def resume(run_dir: Path | str, *, progress: bool = True) -> RunResult:
    """Go on with the run in `run_dir`, as `run` does with its config.

    Raises:
        RunFolderError: there is no run in the folder; and what `run` raises.
    """
    return run(read_config(run_dir), run_dir, resume=True, progress=progress)


def _restore(session: Session, folder: RunFolder) -> None:
    checkpoint.clean(folder.checkpoints)
    finished = checkpoint.find(folder.checkpoints)
    folder.cut_logs(checkpoint.restore(session, finished[-1]) if finished else {"metrics": 0, "timing": 0})


def _train(session: Session, folder: RunFolder, progress: bool) -> None:
    config = session.config
    every = config.checkpoint_every or session.steps_per_epoch
    title = f"{config.recipe} {config.method}"
    bar = ProgressBar(title=title, total_steps=session.total_steps, step=session.step, shown=progress)
    with StopRequest() as stop, bar, _journal(session, folder) as log:
        for batch in _batches(session):
            start_s = time.perf_counter()
            row = train_step(session, batch)
            session.seconds += time.perf_counter() - start_s
            bar.update(session.step, loss=row["loss"], light_s=_light(session).seconds)
            if session.step % config.log_every == 0 or session.step == session.total_steps:
                log(row)
            if session.step % session.steps_per_epoch == 0:
                log(_evaluated(session, session.splits.validation, "validation"))
            if stop.requested and session.step < session.total_steps:
                checkpoint.save(session, folder.checkpoints, folder.sync_logs())
                raise Interrupted(session.step, folder.path)
            if session.step % every == 0 or session.step == session.total_steps:
                checkpoint.save(session, folder.checkpoints, folder.sync_logs())


def train_step(session: Session, batch: data.Split) -> dict[str, Any]:
    """One step of the optimiser; returns the row of metrics.

    Raises:
        NonFinite: the loss, the feedback or a gradient is not finite; the optimiser has not moved.
    """
    config, step = session.config, session.step
    seed_step(config, step)
    rate = learning_rate(config.optimizer, step, session.total_steps)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    session.optimizer.zero_grad(set_to_none=True)
    loss = session.task.loss(session.model, batch)
    norm = _backward(session, loss)
    session.optimizer.step()
    session.step = step + 1
    row = {"step": session.step, "epoch": step // session.steps_per_epoch, "loss": loss.item()}
    return row | {"learning_rate": rate, "gradient_norm": norm} | _feedback_row(session)


def _backward(session: Session, loss: Tensor) -> float:
    """Gradients by the run's method, clipped if asked; returns their total norm before clipping."""
    step = session.step + 1
    if not torch.isfinite(loss):
        raise NonFinite(f"step {step}: the loss is {loss.item()}; lower the learning rate or look at the batch")
    try:
        session.dfa.backward(loss) if session.dfa else torch.autograd.backward(loss)
    except NonFinite as error:
        raise NonFinite(f"step {step}: {error}") from error
    gradients = [parameter.grad for parameter in session.model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        raise NonFinite(f"step {step}: the gradient norm is {norm.item()}; lower the learning rate")
    if session.config.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(session.model.parameters(), session.config.optimizer.clip_norm, norm)
    return norm.item()


def _feedback_row(session: Session) -> dict[str, Any]:
    record = session.dfa.last if session.dfa else None
    if record is None:
        return {}
    return {"light_frames": _light(session).frames, **record.diagnostics, "signal_norms": dict(record.signal_norms)}


def _light(session: Session) -> Light:
    return session.dfa.spent if session.dfa else Light()


def _batches(session: Session) -> Iterator[data.Split]:
    """Batches from the session's step to the last; the position in the data is the step and nothing else."""
    train, size = session.splits.train, session.config.batch_size
    while session.step < session.total_steps:
        epoch, first = divmod(session.step, session.steps_per_epoch)
        order_N = data.order(len(train), seed=session.config.seed, epoch=epoch)
        for start in range(first * size, session.steps_per_epoch * size, size):
            index_N = order_N[start : start + size]
            yield data.Split(x_ND=train.x_ND[index_N], y_N=train.y_N[index_N])


def _evaluated(session: Session, part: data.Split, name: str) -> dict[str, Any]:
    figures = session.task.evaluate(session.model, part)
    epoch = (session.step - 1) // session.steps_per_epoch
    return {"step": session.step, "epoch": epoch} | {f"{name}_{key}": value for key, value in figures.items()}


def _finish(session: Session, folder: RunFolder) -> RunResult:
    """The test part is read here, once, and nowhere else."""
    metric = session.task.metric
    row = _evaluated(session, session.splits.test, "test")
    validation = session.task.evaluate(session.model, session.splits.validation)
    folder.log("metrics", row)
    folder.sync_logs()
    result = RunResult(
        status="complete",
        steps=session.step,
        metric={**asdict(metric), "value": row[f"test_{metric.name}"]},
        validation=validation,
        parameters=session.num_parameters,
        seconds=session.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        light=asdict(_light(session)),
    )
    folder.finish(result.to_json(), step=session.step)
    return result


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute on `count` processor threads inside; as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _journal(session: Session, folder: RunFolder) -> Iterator[Any]:
    """A function that writes a row of metrics everywhere: metrics.jsonl, timing.jsonl, TensorBoard."""
    with folder_errors(folder.path):
        board = TensorBoard(folder.path / "tb", first_step=session.step) if session.config.tensorboard else None

    def log(row: dict[str, Any]) -> None:
        folder.log("metrics", row)
        clock = {"seconds": session.seconds, "peak_memory_bytes": peak_memory_bytes()}
        folder.log("timing", {"step": row["step"], **clock})
        if board:
            with folder_errors(folder.path):
                board.add(row)

    try:
        yield log
    finally:
        if board:
            board.close()


@contextlib.contextmanager
def _recorded_failure(folder: RunFolder, session: Session) -> Iterator[None]:
    """Write down how the run ended unless it ended well."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with contextlib.suppress(OdfaError):  # a full disk must not hide why the run failed
            folder.set_status(status, step=session.step, reason=f"{type(error).__name__}: {error}")
        raise
