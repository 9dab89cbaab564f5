"""One training step of a model, not its first, on the meta device: nothing is allocated, every kernel is counted."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from odfa.data import DataShape
from odfa.engine import DFA, RandomFeedback, Shallow
from odfa.engine.blocks import Blocks, match_blocks
from odfa.engine.handle import Recompute
from odfa.engine.rules.head import HeadRule
from odfa.engine.tensors import first_tensor
from odfa.errors import MatchError, OdfaError
from odfa.project import AbstractProjection
from odfa.scaling.tally import Counting, Tally, fused_attention
from odfa.session import RunConfig, attach
from odfa.session.head_rows import learner_of
from odfa.session.memory import new_weights

Learning = Literal["bp", "shallow", "feedback"]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Operations, bytes and sizes of one step, whatever the processor; bytes are of tensors alive at the same time."""

    depth: float
    """Blocks that learn by themselves."""
    parameters: float
    """Number of trained parameters."""
    updated: float
    """Parameters that a step changes: all, or the head's alone."""
    tensors: float
    """Number of weight tensors that a step changes."""
    largest: float
    """Numbers in the largest weight tensor."""
    rows: float
    """Rows of the output error that are projected: tokens or samples; 0 where nothing is projected."""
    row_width: float
    """Width of an error row, D."""
    signal_width: float
    """Outputs of the projection, M; 0 where nothing is projected."""
    crossings: float
    """Hops of credit in backward, on the average of the steps; their kernels are counted there."""
    forward: Tally
    """Kernels from the inputs to the loss."""
    backward: Tally
    """Kernels after the loss, the projection left out."""
    forward_bytes: np.ndarray
    """Bytes alive after each kernel of the forward pass, beyond weights and inputs."""
    backward_bytes: np.ndarray
    """Bytes alive after each kernel of the backward pass, gradients included."""
    first_bytes: np.ndarray
    """Bytes alive after each kernel of the first step, in which feedback searches the graphs of all blocks for paths
    around them; that step is counted in nothing else. Empty without feedback."""
    estimated: frozenset[str] = frozenset()
    """Operators without a formula: counted as 2 operations for each number in and out, which is the least."""

    @property
    def peak_forward(self) -> float:
        """Most bytes alive during the forward pass."""
        return float(self.forward_bytes.max(initial=0.0))

    @property
    def peak_backward(self) -> float:
        """Most bytes alive in backward."""
        return float(self.backward_bytes.max(initial=0.0))

    @property
    def peak(self) -> float:
        """Most bytes alive in any step, gradients included."""
        return max(self.peak_forward, self.peak_backward, float(self.first_bytes.max(initial=0.0)))

    def stretched(self, deeper: "Walk", depth: float) -> "Walk":
        """The same network with `depth` blocks, from itself and a deeper sibling: everything is affine in the depth.

        Of the bytes alive only the peaks are kept. They are affine as long as the fullest moment stays the same one;
        `memory.need` therefore counts all gradients by themselves besides.
        """
        share = (depth - self.depth) / (deeper.depth - self.depth)
        return weighted((1.0 - share, self._at_its_peaks()), (share, deeper._at_its_peaks()))

    def _at_its_peaks(self) -> "Walk":
        names = ("forward_bytes", "backward_bytes", "first_bytes")
        return replace(self, **{name: np.array([getattr(self, name).max(initial=0.0)]) for name in names})  # type: ignore[arg-type]


def weighted(*pairs: tuple[float, Walk]) -> Walk:
    """Sum of weight x walk, quantity by quantity and kernel by kernel."""
    sums: dict[str, Any] = {"estimated": frozenset().union(*(walk.estimated for _, walk in pairs))}
    for entry in fields(Walk):
        if entry.name in sums:
            continue
        first, *others = (weight * getattr(walk, entry.name) for weight, walk in pairs)
        sums[entry.name] = sum(others, start=first)
    return Walk(**sums)


def widened(siblings: Mapping[int, Walk], width: int) -> Walk:
    """The same network at another width, from siblings of three widths: everything is a polynomial of second degree.

    That holds for the bytes alive after each kernel as well, since all widths run the same kernels in the same order.
    """
    # Lagrange's weights, one for each sibling: the polynomial itself is never needed
    weights = {
        place: math.prod((width - other) / (place - other) for other in siblings if other != place)
        for place in siblings
    }
    return weighted(*((weights[place], walk) for place, walk in siblings.items()))


class Assumed(AbstractProjection):
    """A projection that only counts its rows and returns the right shape; its cost is computed by `StepTerms`."""

    def __init__(self, num_inputs: int | None = None, num_outputs: int | None = None) -> None:
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        self.rows = 0

    def shaped(self, num_inputs: int, num_outputs: int) -> "Assumed":
        """A projection of this shape, no row counted yet."""
        return Assumed(num_inputs, num_outputs)

    @property
    def identity(self) -> str:
        """The word "assumed": there is no matrix to name."""
        return "assumed"

    def matrix(self) -> Tensor:
        """A matrix of the right shape on the meta device, without values."""
        return torch.empty(self.num_inputs or 0, self.num_outputs or 0, device="meta")

    def _project(self, e_ND: Tensor) -> Tensor:
        self.rows += len(e_ND)
        return e_ND.new_empty(len(e_ND), self.num_outputs or 0)


def walk_run(config: RunConfig, shape: DataShape) -> Walk:
    """The walk of one step of a run; where hops are computed in one of n steps, the mean of n steps.

    Then the bytes alive are those of a step with hops, and their weighing, number by number, is left out.

    Raises:
        ConfigError, MatchError: the config does not fit itself or its data, or its network cannot be walked.
    """
    rule = config.rule
    if not isinstance(rule, HeadRule) or not rule.hops or rule.hop_every == 1:
        return _walk_run(config, shape)
    # the step that is counted is the second one, in which seldom hops are never due
    without = _walk_run(config, shape)
    hopping = _walk_run(replace(config, rule=replace(rule, hop_every=1)), shape)
    share = 1 / rule.hop_every
    backward = share * hopping.backward + (1 - share) * without.backward
    return replace(hopping, backward=backward, crossings=share * rule.hops)


def _walk_run(config: RunConfig, shape: DataShape) -> Walk:
    """The walk of the second step of a run."""
    with torch.device("meta"), new_weights(config.memory):
        model = config.network.build(shape)
        inputs = config.network.example(shape, config.batch_size)
    with _walkable(type(model).__name__):
        dfa = attach(model, config, shape, projection=Assumed())
        blocks = [model.get_submodule(name) for name in config.network.blocks]
        learner = learner_of(model, config)
        loss = partial(_class_loss if config.task.of_classes else _field_loss, model, inputs)
        loss = loss if learner is model else partial(_loss_in_rows, learner, inputs)
        return _walk_step(model, inputs, dfa, loss, blocks=blocks, fused=config.memory.fused)


def walk_module(
    model: nn.Module,
    inputs: Sequence[Tensor],
    learning: Learning,
    *,
    blocks: Blocks = None,
    recompute: Recompute = False,
) -> Walk:
    """The walk of one step of any module on the meta device, with the mean square of its output as the loss.

    Args:
        blocks: as in `DFA`; None: found by itself.
        recompute: as in `DFA`.

    Raises:
        MatchError: the module cannot run on sizes alone, or no blocks are found in it.
    """
    # a copy, because walking attaches hooks and fills gradients: the caller's model stays as it is
    inputs = tuple(tensor.to("meta") for tensor in inputs)
    with _walkable(type(model).__name__):
        model, dfa = _without_values(model), None
        if learning == "shallow":
            dfa = DFA(model, blocks, rule=Shallow())
        elif learning == "feedback":
            dfa = DFA(model, blocks, projection=Assumed(), rule=RandomFeedback(shared=True), recompute=recompute)
        found = list(match_blocks(model, blocks).values())
        return _walk_step(model, inputs, dfa, partial(_field_loss, model, inputs), blocks=found)


def _without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; the model itself keeps its weights, and they are not copied."""
    # deepcopy takes what is in the memo as copied already, so that no weight is ever held twice
    memo: dict[int, Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        bare = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def _walkable(name: str) -> Iterator[None]:
    """Inside, every error of a model that has no values becomes a `MatchError` of one line."""
    try:
        yield
    except OdfaError:
        raise
    except (Exception, SystemExit) as error:
        why = " ".join(str(error).split())[:200]
        raise MatchError(
            f"{name} cannot be walked on the meta device, where tensors have sizes and no values: "
            f"{type(error).__name__}: {why}; give a model whose steps do not depend on values"
        ) from error


def _walk_step(
    model: nn.Module,
    inputs: Sequence[Tensor],
    dfa: DFA | None,
    loss_of: Callable[[], Tensor],
    *,
    blocks: Sequence[nn.Module],
    fused: bool = False,
) -> Walk:
    # Order: tensors made before are known first, so that only the step's own count as alive; one step settles the
    # feedback, of which memory alone counts; then forward and backward are taken apart at the loss.
    removable, first_bytes = [], np.zeros(0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    received: set[int] = set()
    for parameter in trained:
        forget = partial(_receive, received, fused)
        removable.append(parameter.register_post_accumulate_grad_hook(forget))  # type: ignore[no-untyped-call]
    counting = Counting()
    for tensor in (*model.parameters(), *model.buffers(), *inputs):
        counting.know(tensor)
    try:
        with fused_attention([module for module in model.modules() if list(module.children())]), counting:
            if dfa is not None:
                _settle(dfa, loss_of, trained)
                _, first_bytes = counting.taken()
            loss = loss_of()
            forward, forward_bytes = counting.taken()
            torch.autograd.backward(loss)
    finally:
        for hook in removable:
            hook.remove()
        if dfa is not None:
            dfa.remove()
    backward, backward_bytes = counting.taken()
    moved = [parameter for parameter in trained if id(parameter) in received]
    projection = dfa.projection if dfa is not None and dfa.rule.wiring.feeds else None
    walk = Walk(
        depth=len(blocks),
        parameters=sum(parameter.numel() for parameter in trained),
        updated=sum(parameter.numel() for parameter in moved),
        tensors=len(moved),
        largest=max((parameter.numel() for parameter in trained), default=0),
        rows=projection.rows if isinstance(projection, Assumed) else 0,
        row_width=0 if projection is None else projection.num_inputs or 0,
        signal_width=0 if projection is None else projection.num_outputs or 0,
        crossings=0 if dfa is None else dfa.rule.crossings,
        forward=forward,
        backward=backward,
        forward_bytes=forward_bytes,
        backward_bytes=backward_bytes,
        first_bytes=first_bytes,
        estimated=frozenset(counting.estimated),
    )
    for parameter in trained:
        parameter.grad = None
    return walk


def _settle(dfa: DFA, loss_of: Callable[[], Tensor], trained: Sequence[Tensor]) -> None:
    """Run the first step, in which feedback searches for paths around blocks, at extra cost."""
    torch.autograd.backward(loss_of())
    for parameter in trained:
        parameter.grad = None
    if isinstance(dfa.projection, Assumed):
        dfa.projection.rows = 0


def _receive(received: set[int], fused: bool, parameter: Tensor) -> None:
    """Record that a parameter received a gradient; with fused updates the gradient is freed at once."""
    received.add(id(parameter))
    if fused:
        parameter.grad = None


def _class_loss(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Cross-entropy of every error row, as the tasks with classes or tokens have it."""
    logits = _output(model, inputs)
    rows_NV = logits.flatten(0, -2).float()
    return cross_entropy(rows_NV, rows_NV.new_zeros(len(rows_NV), dtype=torch.long))


def _loss_in_rows(learner: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """The same, computed with the head some rows at a time."""
    loss: Tensor = learner(inputs[0].new_zeros(inputs[0].shape), *inputs, use_cache=False)
    return loss


def _field_loss(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Mean square of the output, as the tasks with fields have it."""
    return _output(model, inputs).float().square().mean()


def _output(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    keywords = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}
    answer = model(*inputs, **keywords)
    output = first_tensor(
        getattr(answer, "logits", answer)
    )  # of a mixture of experts, the router's loss may come first
    if output is None:
        raise MatchError(f"{type(model).__name__} returns no floating-point tensor to compute a loss from")
    return output
