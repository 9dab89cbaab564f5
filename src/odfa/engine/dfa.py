"""The handle: attach direct feedback alignment to any module, leave the model and the training loop alone."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from odfa.encode import AbstractEncoder
from odfa.engine import membership
from odfa.engine.alignment import Alignment, Measurement
from odfa.engine.arguments import check_arguments
from odfa.engine.attached import handle_of, refuse_second_handle
from odfa.engine.blocks import Blocks, match_blocks, match_inside
from odfa.engine.handle import InputGradient, Mode, Recompute, Unread
from odfa.engine.hooks import Hooks
from odfa.engine.linears import LinearFeedback
from odfa.engine.paths import Cut
from odfa.engine.rules import AbstractRule, RandomFeedback
from odfa.engine.status import describe
from odfa.engine.step import Step, Tie
from odfa.engine.tensors import named_tensors
from odfa.error import Errors, Tap, find_taps
from odfa.errors import CheckpointError, ConfigError, MatchError, NonFinite
from odfa.flow import Light, StepRecord
from odfa.project import AbstractProjection, Encoded, Gaussian, Optical
from odfa.saved import check_state, word


class DFA:
    """Direct feedback alignment on an unmodified `nn.Module`: each block learns from the projected output error.

    For block l with output h_l and output error e = dL/dy, parameters of the block receive (dh_l/dW_l)^T s_l with
    s_l = B_l e in place of the true dL/dh_l; what lies behind the last block learns by its true gradient. Inside a
    block gradients are exact, between blocks none flow. The model's class, `state_dict`, signature and values stay.

    Args:
        model: the module whose forward will be called.
        blocks: a pattern ("transformer.h.*"), patterns, modules, or None to have them found.
        feedback: the projection B; `Gaussian(seed=0)` by default, or `Optical(opu)`, `Identity()`, …
        rule: `RandomFeedback()` by default, `AlignedReadout()`, or a control (`Shallow()`, `ElectronicOnly()`).
        encoder: ternarise the error before a digital projection (an optical one has its own encoder).
        error_at: where e is read: "logits" (the head's output), "head_input", "output" (what the model returns), a
            module's name, or "name:input". Several places, for several heads: their errors stand side by side in one
            row (rules with direct wiring).
        recompute: True keeps each block's inputs only and runs it again in backward; "stream" keeps nothing: backward
            runs the model once more and each block learns as it passes, so that memory does not grow with depth (with
            `fuse_optimizer` no weight may then serve both a block and what lies behind the last one).
        branches: patterns of modules inside blocks at whose input a branch of the residual stream begins, such as the
            norm before the MLP ("transformer.h.*.ln_2"). No gradient leaves a branch: attention and MLP then learn each
            from the block's signal, and the input gradient of the MLP's first layer is saved.
        linears: patterns of linear layers inside blocks whose input gets M^T delta instead of W^T delta, M the mean
            weight of all of them that have its shape; attaching sets these to the same start. With the layers that end
            the branches ("transformer.h.*.c_proj") and `branches`, no layer computes an input gradient of its own.

        unread: what happens when a loss depends on the blocks past `error_at`, for instance through a second head:
            "refuse" it, or "allow" it, so that it trains what lies behind the blocks and no block hears of it.
        input_gradient: the gradient that the model's input receives is the first block's local one. "refuse" stops a
            backward pass that asks for it, "none" gives none, "local" hands it on.

    Raises:
        MatchError: blocks, branches or tap do not match the model, which is left untouched.
        ConfigError: an argument is of the wrong kind, or settings do not fit together.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> dfa = DFA(model)
        >>> model(torch.randn(2, 4)).square().mean().backward()

    Source: Nøkland, arXiv 1609.01596; Launay et al., arXiv 2006.12878; by light, arXiv 2409.12965.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Blocks = None,
        *,
        feedback: AbstractProjection | None = None,
        rule: AbstractRule | None = None,
        encoder: AbstractEncoder | None = None,
        error_at: str | Sequence[str] = "logits",
        recompute: Recompute = False,
        branches: str | Sequence[str] = (),
        linears: str | Sequence[str] = (),
        unread: Unread = "refuse",
        input_gradient: InputGradient = "refuse",
    ) -> None:
        check_arguments(
            model=model, blocks=blocks, feedback=feedback, rule=rule, encoder=encoder, error_at=error_at,
            branches=branches, linears=linears,
        )  # fmt: skip
        refuse_second_handle(model)
        self.model = model
        self.rule = rule if rule is not None else RandomFeedback()
        self.blocks = match_blocks(model, blocks)
        self.last_block = list(self.blocks)[-1]
        self.branches = match_inside(model, branches, self.blocks)
        self.linears = LinearFeedback(match_inside(model, linears, self.blocks))
        self.taps = find_taps(model, error_at, self.blocks.values())
        self.recompute, self.unread, self.input_gradient = recompute, unread, input_gradient
        self.mode: Mode = "learn"
        self.last: StepRecord | None = None
        self.members: membership.Membership | None = None
        if recompute not in (True, False, "stream"):
            raise ConfigError(f"recompute: expected True, False or 'stream', got {recompute!r}")
        if unread not in ("refuse", "allow") or input_gradient not in ("refuse", "none", "local"):
            raise ConfigError(
                "expected unread='refuse' or 'allow' and input_gradient='refuse', 'none' or 'local', "
                f"got {unread!r} and {input_gradient!r}"
            )
        for tap in self.taps:
            self._check_tap(tap)
        if self.rule.wiring == "residual" and (len(self.taps) > 1 or unread == "allow"):
            raise MatchError(
                f"rule {self.rule.name} sends one head's error along the stream, so it takes one place in error_at and "
                "unread='refuse'; use RandomFeedback() for several heads"
            )
        self._projection = _with_encoder(feedback if feedback is not None else Gaussian(seed=0), encoder)
        self.feedback = self.rule.start(self._projection, model, self.tap.module)
        self._measurement: Measurement | None = None
        self._errors = Errors(self.taps)
        self._answered = 0
        self._traced: set[object] = set()
        self._untraced: set[object] = set()
        self._trained: frozenset[int] = frozenset()
        self._behind: set[int] = set()
        self._hooks = Hooks(self)
        self._hooks.attach(recompute=recompute)

    @staticmethod
    def of(model: nn.Module) -> "DFA | None":
        """The handle attached to `model`, if any (also after a deep copy or unpickling of an attached model)."""
        handle = handle_of(model)
        return handle if isinstance(handle, DFA) else None

    def backward(self, loss: Tensor) -> None:
        """`loss.backward()` with its conditions checked: the spelling that is always safe.

        Raises:
            NonFinite: the loss, the error or the feedback is NaN or infinite; no optimiser has moved.
            MatchError: the loss has no gradient, or does not depend on the place where the error is read.
        """
        if not loss.requires_grad:
            raise MatchError(
                "the loss has no gradient: it was computed under torch.no_grad() or from a detached output"
            )
        if not loss.isfinite().all():
            raise NonFinite(
                f"the loss is {loss.item()} and the optimiser has not moved; lower the learning rate or see the batch"
            )
        before = self._answered
        loss.backward()  # type: ignore[no-untyped-call]
        if self.mode == "learn" and self.rule.wiring != "none" and self._answered == before:
            raise MatchError(
                f"the loss does not depend on {self.tap}, where the error is read: no block learned; choose error_at"
            )

    def remove(self) -> None:
        """Take every hook off again; the model is then exactly what it was, with the weights it has learned."""
        self._hooks.remove()

    @contextmanager
    def passthrough(self) -> Iterator[None]:
        """Forward passes inside are ordinary ones; their backward is backpropagation."""
        before, self.mode = self.mode, "through"
        try:
            with self.linears.true_gradients():
                yield
        finally:
            self.mode = before

    @contextmanager
    def measure_alignment(self) -> Iterator[Alignment]:
        """Cosine between local and true gradient, per block, of one forward and backward run inside.

        Both gradients are taken from the same forward pass; weights, `.grad` and all counters (the light of the
        measurement, too) are left as they were. The mapping is filled when the context ends.

        Raises:
            MatchError: no backward pass reached the error inside, the forward used reentrant checkpointing, the rule
                feeds no block, or an optimiser is fused into backward.
        """
        measurement = Measurement(self)
        before, self.mode, self._measurement = self.mode, "measure", measurement
        try:
            with measurement.undisturbed():
                yield measurement.alignment
                measurement.finish()
        finally:
            self.mode, self._measurement = before, None

    def answer(self, step: Step, tie: Tie) -> list[Tensor]:
        """Signals for the calls that one tap answers for: stages 1 to 5 of the flow."""
        read = {known.tap: (known.error, known.like, known.shape) for known in step.ties}
        error = self._errors.row(read)
        calls = [step.calls[number] for number in tie.calls]
        spent, start_s = self.spent, time.perf_counter()
        signals = self.feedback.signals(error, calls)
        projecting_s = time.perf_counter() - start_s
        self._answered += 1
        norms = torch.stack([vector_norm(signal) for signal in signals]).tolist() if signals else []
        if not all(map(math.isfinite, norms)):
            raise NonFinite(
                f"the feedback of {self.projection.identity} contains NaN or infinity; the optimiser has not moved"
            )
        names = [call.block for call in calls] if self.rule.wiring == "direct" else [str(self.tap)]
        self.last = StepRecord(
            signal_norms=dict(zip(names, norms, strict=True)),
            diagnostics=dict(self.projection.diagnostics),
            light=self.spent - spent,
            projecting_s=projecting_s,
        )
        return signals

    def record(self, tie: Tie, end: Tensor, targets: Sequence[Tensor]) -> None:
        """Keep what the measurement in progress differentiates."""
        assert self._measurement is not None
        self._measurement.record(tie, end, targets)

    def measured(self, grad_y: Tensor | None, signals: Sequence[Tensor]) -> None:
        """Take local gradients for the measurement in progress."""
        assert self._measurement is not None
        self._measurement.take_local(grad_y, signals)

    def wants_trace(self) -> bool:
        """Whether the next pass has to be traced: the first, the first with other blocks or trained parameters, and
        every one where the model has ways around its blocks."""
        trained = frozenset(id(p) for p in self.model.parameters() if p.requires_grad)
        if trained != self._trained:
            self._trained, self._traced, self._untraced = trained, set(), set()
        return not self._traced or bool(self._untraced) or (self.members is not None and self.members.around)

    def note(self, step: Step, output: Any) -> list[Cut]:
        """Which parameters are fed by which signal, and which edges of the graph of this traced pass must be cut.

        Raises:
            MatchError: see `membership.trace`; streaming with fused updates where blocks share what learns.
        """
        found, cuts = membership.trace(self.model, self.blocks, step, output, self.rule.wiring)
        membership.note_output(found, self.model, output, step, cuts)
        fused = any(p._post_accumulate_grad_hooks for p in self.model.parameters())
        if found.shared and fused and self.recompute == "stream":
            raise MatchError(
                "several blocks read something that learns (a condition, an encoder's end), and a fused optimiser "
                "would move it between two of them; use recompute=True, or an ordinary optimiser"
            )
        self._traced.add(_key(step, output))
        self._untraced.discard(_key(step, output))
        if self.members is None:
            self.members = found
        self.members.merge(found)
        exact = self.members.behind | self.members.ahead
        self._behind = {id(p) for name, p in self.model.named_parameters() if name in exact}
        return cuts

    def note_calls(self, step: Step, output: Any) -> None:
        """A pass that was not traced: if other blocks ran or other outputs came, the next are, until these come again.

        Raises:
            MatchError: the error reaches parameters that it did not reach in traced passes.
        """
        if self.rule.wiring != "none" and _key(step, output) not in self._traced:
            self._untraced.add(_key(step, output))
        new = {id(leaf) for leaf in membership.leaves_behind(step.reads)} - self._behind
        if not new:
            return
        self._untraced.add(_key(step, output))
        assert self.members is not None
        local = set().union(*self.members.blocks.values())
        names = [name for name, p in self.model.named_parameters() if id(p) in new and name in local]
        if names and self.rule.wiring != "none":
            raise MatchError(
                f"the error now reaches {names[0]} by a way that was not there when the model was traced and may lead "
                "around the blocks; run this step again, it will be traced"
            )

    def complain_unread(self, path: str) -> str:
        """What to say when a gradient comes from a place that is not read."""
        assert self.members is not None
        names = self.members.unread.get(path, set()).difference(self.members.behind, *self.members.blocks.values())
        heads = {name.rpartition(".")[0] for name in names}
        last = next((name for name, _ in reversed(list(self.model.named_modules())) if name in heads), None)
        taps = [tap.name if tap.side == "output" else str(tap) for tap in self.taps]
        read = f"read it too, error_at={[*taps, last]!r}" if last is not None else "read the error behind it (error_at)"
        return (
            f"the loss depends on {path} and not only on {' and '.join(map(str, self.taps))}, so no block would learn "
            f"from that part of it; {read}, or attach with unread='allow' to train no more than what lies behind the "
            "blocks with it"
        )

    @property
    def tap(self) -> Tap:
        """Where the error is read; the first of several places."""
        return self.taps[0]

    @property
    def spent(self) -> Light:
        """Light spent so far."""
        return self.projection.spent

    @property
    def projection(self) -> AbstractProjection:
        """The projection at work, with its shape once the model has run."""
        return self.feedback.projection or self._projection

    @property
    def identity(self) -> str:
        """Rule and projection: what a checkpoint must agree with."""
        return f"{self.rule!r} | {self.projection.identity}"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's weights: the rule's state and the projection's counters."""
        return {
            "identity": self.identity,
            "blocks": list(self.blocks),
            "feedback": self.feedback.state_dict(),
            "projection": self.projection.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore.

        Raises:
            CheckpointError: the state belongs to another rule, projection or model; nothing was changed.
        """
        form = {"identity": str, "blocks": [str, ...], "feedback": {str: object}, "projection": {str: object}}
        check_state(state, form, "dfa")
        ours, theirs = repr(self.rule), state["identity"].partition(" | ")[0]
        if ours != theirs:
            raise CheckpointError(f"the checkpoint was trained with {word(theirs)}, this is {ours}")
        if state["blocks"] != list(self.blocks):
            odd = sorted(set(state["blocks"]) ^ set(self.blocks)) or ["their order"]
            raise CheckpointError(f"the checkpoint and this model differ in blocks: {', '.join(map(word, odd[:3]))}")
        before = self.state_dict()
        self.feedback.load_state_dict(state["feedback"])
        if state["identity"] != self.identity:
            found = self.identity
            self.feedback.load_state_dict(before["feedback"])
            raise CheckpointError(f"the checkpoint was trained with {word(state['identity'])}, this is {found}")
        try:
            self.projection.load_state_dict(state["projection"])
        except CheckpointError:
            self.restore(before)
            raise

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that is known to fit."""
        self.feedback.load_state_dict(state["feedback"])
        self.projection.load_state_dict(state["projection"])

    def __repr__(self) -> str:
        return describe(self)

    def _check_tap(self, tap: Tap) -> None:
        for name, block in self.blocks.items():
            inside = any(child is tap.module for child in block.modules() if child is not block)
            if inside or (block is tap.module and tap.side == "input"):
                raise MatchError(f"the error is read at {tap}, inside block {name}; choose error_at behind the blocks")
        tap_is_head = tap.side == "output" and tap.module is not self.model
        if self.rule.wiring == "residual" and not tap_is_head:
            raise MatchError(f"rule {self.rule.name} reads the error at the head's output, got error_at={tap}")


def _key(step: Step, output: Any) -> object:
    calls = frozenset((call.block, call.deferred) for call in step.calls)
    return calls, frozenset(path for path, _ in named_tensors(output))


def _with_encoder(projection: AbstractProjection, encoder: AbstractEncoder | None) -> AbstractProjection:
    if encoder is None:
        return projection
    if isinstance(projection, (Optical, Encoded)):
        raise ConfigError("this projection has an encoder of its own; give it there: odfa.Optical(opu, encoder=...)")
    return Encoded(projection, encoder)
