"""The contract of an execution."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from odfa.engine.executions.again import Pass
from odfa.engine.record import Record, Tie
from odfa.engine.wirings import AbstractWiring, Arrival, Graphs, on_devices
from odfa.errors import MatchError


class SecondRun(Protocol):
    """A run of the model inside backward: blocks learn one after another, or are looked at."""

    records: ClassVar[bool]
    """Whether autograd is on in this run; blocks that run with the other setting are none of it."""

    wiring: AbstractWiring

    def learn(self, output: Any, *, shared: bool) -> Any:
        """Called with what each block returned; returns what goes on in its place.

        Args:
            shared: blocks read something that learns, whose graph the next block needs once more.
        """
        ...


class Running(Protocol):
    """What an execution knows of the handle whose model it runs."""

    model: nn.Module
    second_run: SecondRun | None
    """While the model runs a second time, inside backward: whose blocks learn."""


class AbstractExecution:
    """How the blocks run in one forward pass, and what backward then does at the gates; made new for every pass.

    The methods are called in this order:

    - forward: `before_block` and `after_block` around each block, `at_tap` at a tap;
    - backward: `feed` at the gate of a tap, `at_arrival` where the wiring has a gate at a block's output.
    """

    runs_blocks_again: ClassVar[bool] = False
    """Backward runs every block a second time, so hooks have to see blocks that fail, too."""
    runs_model_again: ClassVar[bool] = False
    """Backward runs the whole model a second time."""
    connects: ClassVar[bool] = False
    """Blocks stay connected in the graph, for a backward pass that is backpropagation after the gates."""

    def __init__(
        self, handle: Running, wiring: AbstractWiring, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """The model of `handle` is about to run on these arguments; `wiring` is the one of this pass."""
        self.wiring = wiring
        self.ran = 0
        """Blocks that have returned."""
        self.waiting = 0
        """Deferred calls that autograd has not run again yet."""
        self.before: Pass | None = None
        """What the model runs on, where the rule needs it to run once more."""

    def before_block(
        self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, watching: bool
    ) -> None:
        """A block is about to run, with autograd on; `watching`: its graph is needed in this pass, whatever it costs.

        Raises:
            MatchError: it cannot run a second time.
        """

    def after_block(self, *, watching: bool) -> bool:
        """The block has run, or failed. True: it ran without a graph on our account, and will run again."""
        return False

    def check_deferred(self, name: str) -> None:
        """Somebody else let a block run without a graph (reentrant checkpointing).

        Raises:
            MatchError: this execution needs the graph.
        """

    def at_tap(self, step: Record, tie: Tie, output: Tensor, targets: Sequence[Tensor]) -> None:
        """A tap read `output`; its gate will be tied to `targets`.

        Raises:
            MatchError: this execution cannot read the error there.
        """

    def feed(self, step: Record, tie: Tie, grad_y: Tensor | None, signals: Sequence[Tensor]) -> list[Tensor | None]:
        """Backward is at the gate of a tap and the rule has answered: the gradients of the gate's targets."""
        self.waiting += sum(step.calls[number].deferred for number in tie.calls)
        return self.wiring.to_targets(step, tie, signals)

    def at_arrival(self, step: Record, arrives: Arrival, graphs: Graphs, delta: Tensor) -> list[Tensor | None]:
        """Backward is at the wiring's gate at a block's output: the gradients of what the gate is tied to.

        The first of them is the block's output, the others are those of the blocks before it; `graphs` are theirs, in
        running order.
        """
        if step.exact:  # backpropagation passes the gate as if it were not there
            return [delta, *[None] * (graphs.calls - 1)]
        signals = arrives(delta, graphs)
        if signals is None:
            return [None] * graphs.calls
        *earlier, last = on_devices(signals, (device for device, _ in graphs.places))
        return [last, *earlier]

    def close(self) -> None:
        """The forward pass is over, whether it succeeded or not."""


def refuse_cache(name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse blocks that would write to a cache twice.

    Raises:
        MatchError: there is a key-value cache among the arguments.
    """
    if kwargs.get("past_key_values") is not None:
        raise MatchError(
            f"block {name} writes to a key-value cache, which a second run would change; set use_cache=False"
        )
