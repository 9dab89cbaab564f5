"""The training loop: data → model → loss → feedback → optimiser, recorded in a run folder."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from odfa import data
from odfa.devices import device_named
from odfa.engine import FusedOptimizer
from odfa.engine.unseen import fetch, is_near
from odfa.errors import DataError, NonFinite, OdfaError, RunFolderError
from odfa.flow import Light
from odfa.keys import forked
from odfa.session.assembly import Session, build, check_device, check_threads, seed_step, try_loss
from odfa.session.config import RunConfig
from odfa.session.handle import give_targets
from odfa.session.memory import multiplying, set_rate
from odfa.session.places import with_whole_paths
from odfa.session.threads import using_threads
from odfa.store import checkpoint
from odfa.store.folder import (
    Row,
    RunFolder,
    RunFolderLost,
    check_owner,
    check_unchanged,
    folder_errors,
    read_config,
    read_result,
)
from odfa.store.kept import DATA_FILE, keep
from odfa.store.provenance import computed_on, environment
from odfa.store.result import FinalMetric, RunResult
from odfa.train.alignment import check_measurable, measure_alignment
from odfa.train.interrupt import Interrupted, StopRequest
from odfa.train.monitor import ProgressBar, TensorBoard, peak_memory_bytes

Note = Callable[[str], None]
"""Gets one line of text, to show it to the user."""


def run(
    config: RunConfig,
    run_dir: Path | str,
    *,
    resume: bool = False,
    progress: bool = True,
    note: Note = lambda _message: None,
) -> RunResult:
    """Train as `config` says and record the run in `run_dir`.

    Equal configs give equal weights and an equal metrics.jsonl, and a resumed run equals one that was never
    interrupted, bit for bit on one machine with one number of threads (on an accelerator as far as its kernels add in
    a fixed order). torch's random state and number of threads are the same after the run as before.

    Args:
        resume: go on from the newest checkpoint (or from the start if there is none yet); of a complete run return the
            result. If False, the folder must not hold a run.
        progress: show a progress bar on a terminal, or a line every minute if standard error is none.
        note: called once with a line that names the run folder, after all checks have passed.

    Raises:
        ConfigError, MatchError, DataError, Incompatible: the settings do not fit each other, the model, the data, the
            OPU or this machine.
        RunFolderError: the folder cannot be used (RunFolderLost: it could no longer be written during the run).
        CheckpointError: the newest checkpoint is corrupt or belongs to another config, or config.json was changed after
            the run had begun.
        NonFinite: a loss, gradient or feedback was not finite; this step has not changed the weights.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written. A second Ctrl-C stops at once, and the steps since the
            newest checkpoint are lost.
    """
    path, config = Path(run_dir), with_whole_paths(config)
    check_owner(path, config, resume=resume)
    check_unchanged(path)
    finished = read_result(path)
    if finished is not None:
        return RunResult.from_json(finished)
    check_threads(config)
    check_device(config)
    if config.align_every is not None:
        check_measurable(config, "align_every: ")
    with (
        forked([device_named(config.device)]),
        using_threads(config.threads),
        multiplying(config.memory.precision),
        _told_what_is_kept(path),
    ):
        session = _build(config, path)  # before the folder is made: a config that cannot run leaves nothing behind
        if not resume:
            try_loss(session)
        with StopRequest() as stop, RunFolder(path, config, resume=resume) as folder:
            keep(path, session.splits)
            _restore(session, folder)  # errors up to here leave status.json as it was: the run has not gone on
            note(f"resuming {path} after step {session.step}" if session.step else f"run folder: {path}")
            with _recorded_failure(folder), _opu_closed(session):
                folder.add_session(environment() | computed_on(session.device))
                folder.set_status("running", step=session.step)
                return _finish(session, folder, _train(session, folder, stop, progress))


def resume(run_dir: Path | str, *, progress: bool = True, note: Note = lambda _message: None) -> RunResult:
    """Go on with the run in `run_dir`, with the config that is kept there.

    Raises:
        RunFolderError: there is no run in the folder; and everything that `run` raises.
    """
    return run(read_config(run_dir), run_dir, resume=True, progress=progress, note=note)


def _build(config: RunConfig, path: Path) -> Session:
    try:
        return build(config)
    except DataError as error:
        if not os.path.lexists(path / DATA_FILE):
            raise  # the run has not begun: the error itself says what to do
        raise DataError(
            f"{error}; {path} can go on only with the data that it began with: put them back, or write where they are "
            f"now into {path / 'config.json'} (data.path)"
        ) from error


def _restore(session: Session, folder: RunFolder) -> None:
    """Put session and logs into the state of the newest checkpoint, or of the start if there is none."""
    checkpoint.clean(folder.checkpoints)
    finished = checkpoint.find(folder.checkpoints)
    folder.cut_logs(checkpoint.restore(session, finished[-1]) if finished else {"metrics": 0, "timing": 0})


def _train(session: Session, folder: RunFolder, stop: StopRequest, progress: bool) -> dict[str, float] | None:
    """Do the remaining steps; returns the validation figures of the last step, None if that step was not validated."""
    config, figures = session.config, None
    every = config.checkpoint_every or session.steps_per_epoch
    look_every = config.evaluate_every or session.steps_per_epoch
    title = f"{config.recipe} {config.label}"
    bar = ProgressBar(title=title, total_steps=session.total_steps, step=session.step, shown=progress)
    with bar, _journal(session, folder) as log:
        for batch in batches(session):
            start_s = time.perf_counter()
            row = train_step(session, batch)
            session.seconds += time.perf_counter() - start_s
            session.projecting_s += session.dfa.last.projecting_s if session.dfa and session.dfa.last else 0.0
            bar.update(session.step, loss=row["loss"], light_s=_light(session).seconds)
            if session.step % config.log_every == 0 or session.step == session.total_steps:
                log(row)
            if session.step % look_every == 0:
                figures = session.evaluate(session.splits.validation)
                log(_row(session, "validation", figures))
            if config.align_every is not None and session.step % config.align_every == 0:
                log(_alignment_row(session))
            last = session.step == session.total_steps
            figures = figures if session.step % look_every == 0 else None
            # after all logging of this step: a checkpoint keeps the sizes of the logs, to which a resumed run cuts them
            if stop.requested or session.step % every == 0 or last:
                with _told_when(session.step):
                    checkpoint.save(session, folder.checkpoints, folder.sync_logs())
                folder.set_status("running", step=session.step)
            if stop.requested and not last:
                raise Interrupted(session.step, folder.path)
    return figures


def train_step(session: Session, batch: data.Split) -> Row:
    """Do one optimiser step on a batch; returns its row of metrics.

    Raises:
        NonFinite: the loss, the feedback or a gradient is not finite; the weights have not changed. (Fused updates do
            not check gradients: they are applied one by one during the backward pass.)
    """
    config, step = session.config, session.step
    seed_step(config, step)  # augmentation, dropout and noise of this step, whether or not the run was interrupted
    rate = config.optimizer.rate(step, session.total_steps)
    for group in session.optimizer.param_groups:
        set_rate(group, rate * group["rate_share"])
    if isinstance(session.optimizer, torch.optim.Optimizer):  # before the forward pass, which has their memory
        session.optimizer.zero_grad(set_to_none=True)
    batch = config.data.augmented(batch, session.splits.shape).to(session.device)
    give_targets(session.dfa, config, batch)
    loss = session.loss(batch)
    fused = isinstance(session.optimizer, FusedOptimizer)
    figures = _fused_step(session, loss) if fused else _step(session, loss)
    if session.average is not None:
        session.average.update_parameters(session.model)
    session.step = step + 1
    row = {"step": session.step, "epoch": step // session.steps_per_epoch, "loss": figures.pop("loss")}
    return row | {"learning_rate": rate} | figures | _feedback_row(session)


def _step(session: Session, loss: Tensor) -> dict[str, float]:
    """Backward pass, clipping, optimiser step; returns the loss and the norm of all gradients before `clip_norm` scales
    them. An accelerator is waited for once, before the optimiser: all that must be finite comes in one transfer."""
    assert isinstance(session.optimizer, torch.optim.Optimizer)
    _backward(session, loss, look=False)
    if session.config.optimizer.clip_each is not None:
        for parameter in session.model.parameters():
            torch.nn.utils.clip_grad_norm_(parameter, session.config.optimizer.clip_each)
    gradients = [parameter.grad for parameter in session.model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)  # after clip_each, which bounds what one tensor can add to it
    figures = _look(session, loss, norm)
    if session.config.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(session.model.parameters(), session.config.optimizer.clip_norm, norm)
    session.optimizer.step()
    return figures


def _look(session: Session, loss: Tensor, norm: Tensor) -> dict[str, float]:
    """Loss and gradient norm as numbers.

    Raises:
        NonFinite: one of them, the error or the feedback is not finite.
    """
    step, dfa = session.step + 1, session.dfa
    (lost,), (total,), *answers = fetch([loss, norm, *(dfa.unseen.numbers if dfa else [])])
    if dfa and not math.isfinite(lost):
        dfa.unseen.clear()
    _check_loss(step, lost)
    with _named(step):
        if dfa:
            dfa.see(answers)
    if not math.isfinite(total):
        raise NonFinite(f"step {step}: the gradient norm is {total}; lower the learning rate")
    return {"loss": lost, "gradient_norm": total}


def _fused_step(session: Session, loss: Tensor) -> dict[str, float]:
    """Backward pass, in which the updates are applied one by one; no norm is known then."""
    _backward(session, loss, look=True)
    return {"loss": loss.item()}


def _backward(session: Session, loss: Tensor, *, look: bool) -> None:
    """Backward pass by the run's rule; `look`: weights move in it, so that the loss has to be known before."""
    step = session.step + 1
    if look or is_near(loss.device):
        _check_loss(step, loss.item())
    with _named(step):
        session.dfa.backward(loss, look=look) if session.dfa else torch.autograd.backward(loss)


def _check_loss(step: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise NonFinite(f"step {step}: the loss is {loss}; lower the learning rate or look at the batch")


@contextlib.contextmanager
def _named(step: int) -> Iterator[None]:
    """Put the step in front of what is not finite."""
    try:
        yield
    except NonFinite as error:
        raise NonFinite(f"step {step}: {error}") from error


def _feedback_row(session: Session) -> Row:
    record = session.dfa.last if session.dfa else None
    if record is None:
        return {}
    return {"light_frames": _light(session).frames, **record.diagnostics, "signal_norms": dict(record.signal_norms)}


def _alignment_row(session: Session) -> Row:
    """Cosine between local and true gradient, by block."""
    angles = measure_alignment(session)
    # a gradient of exactly zero has no direction: its cosine is NaN, the only number that differs from itself
    return {"step": session.step, "alignment": {name: cosine for name, cosine in angles.items() if cosine == cosine}}


def _light(session: Session) -> Light:
    return session.dfa.spent if session.dfa else Light()


def batches(session: Session) -> Iterator[data.Split]:
    """Batches from the session's step to its last one."""
    # the order follows from seed, epoch and step alone, so that resuming needs no saved position and no generator state
    train, size = session.splits.train, session.config.batch_size
    while session.step < session.total_steps:
        epoch, first = divmod(session.step, session.steps_per_epoch)
        order_N = data.order(len(train), seed=session.config.seed, epoch=epoch)
        for start in range(first * size, session.steps_per_epoch * size, size):
            index_N = order_N[start : start + size]
            yield train.take(index_N)
            if session.step == session.total_steps:
                return


def _row(session: Session, name: str, figures: dict[str, float]) -> Row:
    epoch = (session.step - 1) // session.steps_per_epoch
    return {"step": session.step, "epoch": epoch} | {f"{name}_{key}": value for key, value in figures.items()}


def _finish(session: Session, folder: RunFolder, validation: dict[str, float] | None) -> RunResult:
    """Evaluate on the test part, write the result, return it."""
    # the only place that reads the test part: no choice during training may depend on it
    metric = session.task.metric
    test = session.evaluate(session.splits.test)
    with _told_when(session.step):
        folder.log("metrics", _row(session, "test", test))
    folder.sync_logs()
    result = RunResult(
        status="complete",
        steps=session.step,
        metric=FinalMetric(name=metric.name, better=metric.better, value=test[metric.name]),
        validation=validation or session.evaluate(session.splits.validation),
        parameters=session.num_parameters,
        seconds=session.seconds,
        compute_s=session.seconds - session.projecting_s,
        peak_memory_bytes=peak_memory_bytes(),
        light=_light(session).figures(),
    )
    with _told_when(session.step):
        folder.finish(result.to_json(), step=session.step)
    return result


@contextlib.contextmanager
def _opu_closed(session: Session) -> Iterator[None]:
    """Close the projection at the end, also after an error: an OPU may serve one program at a time."""
    try:
        yield
    finally:
        if session.dfa:
            session.dfa.projection.close()


@contextlib.contextmanager
def _told_when(step: int) -> Iterator[None]:
    """Add the step and an advice to the error about a number that is not finite and cannot be written."""
    try:
        yield
    except NonFinite as error:
        raise NonFinite(f"step {step}: {error}; lower the learning rate") from error


@contextlib.contextmanager
def _journal(session: Session, folder: RunFolder) -> Iterator[Callable[[Row], None]]:
    """A function that writes a row of metrics to metrics.jsonl and TensorBoard, and the time to timing.jsonl."""
    with folder_errors(folder.path):
        board = TensorBoard(folder.path / "tb", first_step=session.step) if session.config.tensorboard else None

    # metrics before timing: a NaN is refused before anything of its step is written
    def log(row: Row) -> None:
        with _told_when(row["step"]):
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
def _recorded_failure(folder: RunFolder) -> Iterator[None]:
    """Record in status.json that the run was interrupted or failed, and why, if an error ends it."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with contextlib.suppress(OdfaError):  # a full disk must not hide why the run failed
            folder.set_status(status, step=_kept(folder.path), reason=f"{type(error).__name__}: {error}".rstrip(": "))
        if isinstance(error, RunFolderError):
            raise RunFolderLost(str(error)) from error
        raise


@contextlib.contextmanager
def _told_what_is_kept(path: Path) -> Iterator[None]:
    """Turn a second Ctrl-C, which did not wait for a checkpoint, into an `Interrupted` that says how to go on."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        if not (path / "config.json").exists():
            raise
        raise Interrupted(_kept(path), path) from error


def _kept(path: Path) -> int:
    """Number of steps in the newest checkpoint, which a resumed run need not do again."""
    finished = checkpoint.find(path / "checkpoints")
    return checkpoint.step_of(finished[-1]) if finished else 0
