"""The handle: attach direct feedback alignment to any module, leave the model and the training loop alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from odfa.arguments import kind as check_kind
from odfa.encode import AbstractEncoder
from odfa.engine.alignment import Alignment, Measurement
from odfa.engine.arguments import check_arguments, check_choices, check_rule, with_encoder
from odfa.engine.attached import handle_of, refuse_second_handle
from odfa.engine.blocks import Blocks, match_blocks, match_inside
from odfa.engine.compiled import Compile, check_compile, compiled_as, uncompiled
from odfa.engine.executions import AbstractExecution, Keep, Measure, Recompute, Stream
from odfa.engine.executions.base import SecondRun
from odfa.engine.executions.products import ForwardProducts, check_one_tap
from odfa.engine.handle import InputGradient, Mode, Unread
from odfa.engine.handle import Recompute as RecomputeChoice
from odfa.engine.hooks import Hooks
from odfa.engine.linears import LinearFeedback
from odfa.engine.membership import Membership
from odfa.engine.optimizer_steps import OptimizerSteps
from odfa.engine.passes import Passes
from odfa.engine.places import check_taps
from odfa.engine.record import Tie
from odfa.engine.returned import check_signals, check_started
from odfa.engine.rules import AbstractRule, RandomFeedback
from odfa.engine.rules.head import check_head
from odfa.engine.status import describe
from odfa.engine.step import Step
from odfa.engine.targets import with_targets
from odfa.engine.unseen import Answered, Stopwatch, Unseen, complain_loss, fetch, may_wait
from odfa.engine.wirings import AbstractWiring
from odfa.error import Errors, Tap, find_taps
from odfa.errors import CheckpointError, MatchError, NonFinite
from odfa.flow import Light, StepRecord
from odfa.project import AbstractProjection, Gaussian
from odfa.project.base import keeping_sizes
from odfa.saved import check_state, word


class DFA:
    """Direct feedback alignment on an unmodified `nn.Module`: each block learns from the projected output error.

    For block l with output h_l and output error e = dL/dy, parameters of the block receive (dh_l/dW_l)^T s_l with
    s_l = B_l e in place of the true dL/dh_l; what lies behind the last block learns by its true gradient. Inside a
    block gradients are exact, between blocks none flow. The model's class, `state_dict`, signature and values stay.

    Args:
        model: the module whose forward will be called.
        blocks: a pattern ("transformer.h.*"), patterns, modules, or None to have them found.
        projection: B; `Gaussian(seed=0)` by default, or `Optical(opu)`, `Identity()`, …
        rule: `RandomFeedback()` by default, `AlignedHead()`, or a control (`Shallow()`, `ElectronicOnly()`, …).
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
        overwrite_head: rules that set the head to a start value refuse one that looks trained; True lets them.
        compile: compile each block's forward, and so its local backward, without a graph break; blocks of one structure
            share the code. True: by torch's inductor; or the name of another backend of `torch.compile`.

    Raises:
        MatchError: blocks, branches, tap or head do not match the model or the rule; the model is left untouched.
        ConfigError: an argument is of the wrong kind, settings do not fit together, or the rule needs what DFA lacks.

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
        projection: AbstractProjection | None = None,
        rule: AbstractRule | None = None,
        encoder: AbstractEncoder | None = None,
        error_at: str | Sequence[str] = "logits",
        recompute: RecomputeChoice = False,
        branches: str | Sequence[str] = (),
        linears: str | Sequence[str] = (),
        unread: Unread = "refuse",
        input_gradient: InputGradient = "refuse",
        overwrite_head: bool = False,
        compile: Compile = False,  # noqa: A002 - torch says it so
    ) -> None:
        check_arguments(
            model=model, blocks=blocks, projection=projection, rule=rule, encoder=encoder, error_at=error_at,
            branches=branches, linears=linears,
        )  # fmt: skip
        check_choices(recompute=recompute, unread=unread, input_gradient=input_gradient)
        refuse_second_handle(model)
        self.model = model
        self.rule = rule if rule is not None else RandomFeedback()
        check_rule(self.rule, recompute=recompute, linears=linears)
        self.blocks = match_blocks(model, blocks)
        self.rule.check_blocks(list(self.blocks))
        self.last_block = list(self.blocks)[-1]
        self.branches = match_inside(model, branches, self.blocks)
        self.linears = LinearFeedback(match_inside(model, linears, self.blocks))
        check_compile(compile, model, self.blocks, self.rule)
        self.taps = find_taps(model, error_at, self.blocks.values())
        self.unread, self.input_gradient = unread, input_gradient
        check_taps(self.taps, self.blocks)
        check_one_tap(self.rule, self.taps)
        self._projection = with_encoder(projection if projection is not None else Gaussian(seed=0), encoder)
        self.rule.check_projection(self._projection)
        at_model = any(tap.module is model for tap in self.taps)
        self.rule.wiring.check(self.rule.name, self.taps, at_model=at_model, unread=unread)
        if self.rule.sets_head:
            check_head(model, self.tap.module, overwrite=overwrite_head)
        self.mode: Mode = "learn"
        self.execution = {False: Keep, True: Recompute, "stream": Stream}[recompute]
        self.second_run: SecondRun | None = None
        self.unseen, self._waiting = Unseen(), False
        self._last: StepRecord | None = None
        self.passes = Passes(model, self.blocks, self.taps, self.execution)
        self.at_work = check_started(self.rule, self.rule.start(self._projection, model, self.tap.module))
        self.optimizer_steps = OptimizerSteps(model, self.rule, self.at_work)
        self._targets: Tensor | None = None
        self._measurement: Measurement | None = None
        self._errors = Errors(self.taps)
        self._answered = 0
        self.compiled = compiled_as(
            self.blocks, compile, [set(self.branches.values()), set(self.linears.layers.values())]
        )
        self._hooks = Hooks(self)
        self.optimizer_steps.listen()
        self._hooks.attach()

    @staticmethod
    def of(model: nn.Module) -> "DFA | None":
        """The handle attached to `model`, if any (also after a deep copy or unpickling of an attached model)."""
        handle = handle_of(model)
        return handle if isinstance(handle, DFA) else None

    def backward(self, loss: Tensor, *, look: bool = True) -> None:
        """`loss.backward()` with its conditions checked: the spelling that is always safe.

        On an accelerator the loss and all that the backward pass leaves are looked at when it is done, in one transfer.

        Args:
            look: False leaves it to the caller, who fetches `unseen.numbers` before any weight moves and calls `see`.

        Raises:
            NonFinite: the loss, the error or the feedback is NaN or infinite; no optimiser has moved.
            MatchError: the loss has no gradient, or does not depend on the place where the error is read.
        """
        if not loss.requires_grad:
            raise MatchError(
                "the loss has no gradient: it was computed under torch.no_grad() or from a detached output"
            )
        before, waits = self._answered, self.mode == "learn" and may_wait(loss.device, self.model, self.rule)
        if not waits and not loss.isfinite().all():
            raise NonFinite(complain_loss(loss.item()))
        self._waiting = waits
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except BaseException:
            self.unseen.clear()
            raise
        finally:
            self._waiting = False
        if self.mode == "learn" and self.rule.wiring.feeds and self._answered == before:
            raise MatchError(
                f"the loss does not depend on {self.tap}, where the error is read: no block learned; choose error_at"
            )
        if look and waits:
            values, *rest = fetch([loss, *self.unseen.numbers])
            if not all(map(math.isfinite, values)):
                self.unseen.clear()
                raise NonFinite(complain_loss(values[0]))
            self.see(rest)

    def see(self, values: Sequence[list[float]]) -> None:
        """Take the numbers that `unseen` asked for.

        Raises:
            NonFinite: the error or the feedback is NaN or infinite; no optimiser has moved.
        """
        self._last = self.unseen.see(values) or self._last

    @property
    def last(self) -> StepRecord | None:
        """What the newest backward pass did; waits for it if nobody has looked yet."""
        self.see(fetch(self.unseen.numbers))
        return self._last

    def remove(self) -> None:
        """Take every hook off again; the model is then exactly what it was, with the weights it has learned."""
        self._hooks.remove()
        self.optimizer_steps.stop()
        if self.compiled is not None:
            self.compiled.remove()

    def targets(self, y: Tensor) -> None:
        """Hand over what the next forward pass should give, for rules that need it; others do not look at it.

        Call it before `model(x)`, once for each forward pass that learns: labels (B,), or (B, T) for tokens, or values,
        whose first axes are those of the output. Called again before that pass, it replaces what it was given. `y` is
        copied, so it may be written to afterwards.

        Raises:
            ConfigError: it is not a tensor.
        """
        check_kind("targets", y, Tensor, "a tensor, such as dfa.targets(y)")
        # A copy, as a loader may fill its buffer anew before backward, and through NumPy no version counter tells.
        self._targets = y.detach().clone() if "targets" in self.rule.needs else None

    def take_targets(self) -> Tensor | None:
        """What was handed over for the forward pass that begins, once."""
        taken, self._targets = self._targets, None
        return taken

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
            with measurement.undisturbed(), uncompiled(self.model):
                yield measurement.alignment
                measurement.finish()
        finally:
            self.mode, self._measurement = before, None

    def new_wiring(self) -> AbstractWiring:
        """The rule's wiring, for one forward pass."""
        return self.rule.new_wiring(self.last_block)

    def new_execution(
        self, wiring: AbstractWiring, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> AbstractExecution:
        """How blocks run in a forward pass on these arguments: as attached, or measured."""
        if self._measurement is not None:
            return Measure(self, wiring, args, kwargs, measurement=self._measurement)
        return self.execution(self, wiring, args, kwargs)

    def answer(self, step: Step, tie: Tie) -> list[Tensor]:
        """Signals for the calls that one tap answers for: stages 1 to 5 of the flow."""
        read = {known.tap: (known.error, known.like, known.shape) for known in step.taps.ties}
        error = self._errors.row(read)
        if "targets" in self.rule.needs:
            error = with_targets(error, step.taps.targets, self.rule.name)
        if step.execution.before is not None:
            products = ForwardProducts(self, step.wiring, self.tap, step.execution.before, self.linears.true_gradients)
            error = replace(error, known_products=products)
        if not self.at_work.takes_half:
            error = error.widened()
        calls = [step.calls[number] for number in tie.calls]
        names = step.wiring.names(calls, self.taps)
        spent, watch = self.spent, Stopwatch(error.like.device)
        with keeping_sizes() as sizes:
            signals = self.at_work.signals(error, calls)
        watch.stop()
        check_signals(self.rule, signals, names)
        step.wiring.check_signals(step, tie, signals)
        # an angle is that of hops in every pass, whatever pass it is measured in
        step.wiring.hop_weight = 1.0 if step.execution.connects else self.at_work.hop_weight
        self._answered += 1
        self.optimizer_steps.due = self.optimizer_steps.due or self.mode == "learn"
        norms = [vector_norm(signal) for signal in signals]
        answered = Answered(
            names=names,
            norms_L=torch.stack(norms) if norms else error.like.new_zeros(0),
            sizes=sizes,
            identity=self.projection.identity,
            diagnostics=dict(self.projection.diagnostics_there),
            light=self.spent - spent,
            watch=watch,
        )
        self.unseen.add(answered)
        if not self._waiting:
            self.see(fetch(self.unseen.numbers))
        return signals

    @property
    def members(self) -> Membership | None:
        """Which parameter learns from what; None before the first training forward."""
        return self.passes.members

    @property
    def tap(self) -> Tap:
        """Where the error is read; the first of several places."""
        return self.taps[0]

    @property
    def spent(self) -> Light:
        """Frames, seconds, joules and operations that projecting has cost so far."""
        return self.projection.spent

    @property
    def projection(self) -> AbstractProjection:
        """The projection at work, with its shape once the model has run."""
        return self.at_work.projection or self._projection

    @property
    def identity(self) -> str:
        """Rule and projection: what a checkpoint must agree with."""
        return f"{self.rule!r} | {self.projection.identity}"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the model's weights: the rule's state and the projection's counters."""
        return {
            "identity": self.identity,
            "blocks": list(self.blocks),
            "feedback": self.at_work.state_dict(),
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
        before = (
            self.state_dict()
        )  # the projection's shape is known from the rule's state only, so that is loaded first
        self.at_work.load_state_dict(state["feedback"])
        if state["identity"] != self.identity:
            found = self.identity
            self.at_work.load_state_dict(before["feedback"])
            raise CheckpointError(f"the checkpoint was trained with {word(state['identity'])}, this is {found}")
        try:
            self.projection.load_state_dict(state["projection"])
        except CheckpointError:
            self.restore(before)
            raise
        self.optimizer_steps.due = False  # backward passes from before are nothing that the loaded state knows of

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that is known to fit."""
        self.at_work.load_state_dict(state["feedback"])
        self.projection.load_state_dict(state["projection"])

    def __repr__(self) -> str:
        return describe(self)
