"""The contract of a learning rule."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from odfa.engine.calls import Call
from odfa.engine.wirings import AbstractWiring
from odfa.errors import ConfigError
from odfa.flow import ErrorSignal
from odfa.project import AbstractProjection
from odfa.saved import check_state
from odfa.settings import Settings

Need = Literal["error", "targets", "block input", "block output", "forward products", "optimiser step"]
"""What a rule may ask of the engine: e = dL/dy, `error.e_ND`; what outputs should have been, `error.targets`; what each
block received and returned, `call.input` and `call.output`; derivatives of the outputs along directions,
`error.products`; to be told when weights have moved, `stepped`."""

UNSTREAMED: frozenset[Need] = frozenset({"block input", "block output"})
"""Of this, what `recompute="stream"` cannot give, as it keeps nothing of the blocks."""

_DECLARED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "wiring": (
        lambda declared: isinstance(declared, type) and issubclass(declared, AbstractWiring),
        "Direct, or another subclass of AbstractWiring",
    ),
    "needs": (
        lambda declared: isinstance(declared, frozenset) and all(isinstance(need, str) for need in declared),
        "frozenset({'error', …})",
    ),
    "label": (lambda declared: isinstance(declared, str), "'a text for tables'"),
}
"""What the class of a rule has to say: whether it does, and what is expected."""


class AbstractFeedback(ABC):
    """A rule at work: what it computes from an error, and the state it keeps."""

    projection: AbstractProjection | None = None
    takes_half: ClassVar[bool] = False
    """Whether `signals` takes the error in bfloat16 where the device multiplies that as it is (`odfa.devices`), and
    answers in float32; otherwise every error comes in float32 or better."""

    @abstractmethod
    def signals(self, error: ErrorSignal, calls: Sequence[Call]) -> list[Tensor]:
        """The signals that the rule's wiring sends on.

        One per call, of the call's shape (direct wiring), or one of the head input's shape (residual wiring). Called in
        backward, once for each forward pass that learns (for each tap with blocks in front of it), autograd off. A
        measurement calls it too, then puts back what `state_dict` holds, and tensors, numbers, lists and dictionaries
        among the attributes; other objects that change here belong in `state_dict`.

        Raises:
            NonFinite: the error or a signal is not finite.
        """

    def stepped(self, optimizer: Optimizer) -> None:  # noqa: B027 - most learn nothing
        """An optimiser has moved weights of the model, after one or more calls of `signals`; autograd is off.

        Called for rules that need the "optimiser step", once: with several optimisers when the first of them has
        stepped. Not called where no backward pass came before, where GradScaler skips the step, or while measuring.
        """

    def doubts(self, block: str, shape: tuple[int, ...], lead: tuple[int, ...] | None) -> bool:
        """Whether data flow has to show where the batch lies in a block's output; `lead` None: once it is known."""
        return False

    @property
    def hop_weight(self) -> float:
        """What the hops of the pass that was answered last are multiplied by; 0: no signal crosses a block in it."""
        return 1.0

    @property
    def description(self) -> str:
        """What feeds the blocks, for the status table."""
        return self.projection.identity if self.projection else "nothing"

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs; nothing in it is changed in place later, as a measurement restores it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of such a feedback.
        """
        check_state(state, {}, "feedback")


@dataclass(frozen=True, kw_only=True)
class AbstractRule(Settings, ABC, room="odfa.engine.rules", group="odfa.rules"):
    """A rule's settings, and what engine, tables and plans have to know of it; `start` sets it to work on a head."""

    wiring: ClassVar[type[AbstractWiring]]
    """How its signals get to the blocks."""
    needs: ClassVar[frozenset[Need]] = frozenset({"error"})
    """What its feedback is computed from; the engine supplies that and keeps nothing else."""
    projects: ClassVar[bool] = True
    """Whether a projection is used, be it only for the start of the head."""
    cuts: ClassVar[bool] = True
    """False: gradients flow between blocks, so there is nothing for a `DFA` to do."""
    sets_head: ClassVar[bool] = False
    """Attaching sets the head's weight to the rule's start, and the rule goes on reading the whole of it."""
    reads_matrix: ClassVar[bool] = False
    """It starts from `projection.matrix()` and multiplies by matrices of its own: the projection has to be that product
    and nothing else."""
    label: ClassVar[str]
    """For tables and legends."""
    by_rows: ClassVar[bool] = False
    """Its feedback reads the error by `error.chunks()` or `error.each` alone, so that it need never be there as a whole
    (`LinearCrossEntropy`)."""
    colour: ClassVar[str] = "#8C564B"
    """Of its curves in figures, as #RRGGBB."""
    rate_factor: ClassVar[float] = 1.0
    """Centre of the grid of learning rates that is tried for this rule, over the recipe's rate."""

    def __new__(cls, *_args: object, **_settings: object) -> Self:
        """Look at what the class declares, before runs, tables or `DFA` read it.

        Raises:
            ConfigError: a declaration is missing or of the wrong kind.
        """
        made = super().__new__(cls)
        for name, (fits, expected) in _DECLARED.items():
            declared = getattr(cls, name, None)
            if not fits(declared) and not isinstance(declared, property):
                shown = "none" if declared is None else repr(declared)
                raise ConfigError(
                    f"rule {cls.kind or cls.__name__}: expected {name} = {expected}, got {shown}; write it in the "
                    "rule's class"
                )
        return made

    @property
    def name(self) -> str:
        """For messages: its kind, or the class of another package."""
        return self.kind or type(self).__name__

    @property
    def feeds(self) -> bool:
        """Whether blocks get signals, so that there is something to place, to measure and to tune."""
        return self.cuts and self.wiring.feeds

    @property
    def crossings(self) -> int:
        """How often signals cross the blocks backwards; each time takes the input gradients of all but the first."""
        return 0

    @property
    def crossed_every(self) -> int:
        """Of so many backward passes one lets signals cross; in between, blocks get what they get without hops."""
        return 1

    def new_wiring(self, last_block: str) -> AbstractWiring:
        """Its wiring for one forward pass; `last_block` is the one that is last in running order."""
        return self.wiring(self.name, last_block)

    def num_projected(self, widths: Sequence[int], *, head: int) -> int:
        """Outputs of the projection for blocks that are fed signals of these widths: a slice for each.

        Args:
            head: width of the head's input.
        """
        return sum(widths)

    def num_vectors(self, rows: int, *, num_outputs: int) -> int:
        """Vectors that are projected for so many rows of the error, in one run on a head of `num_outputs`."""
        return rows if self.projects else 0

    def check(self, *, num_outputs: int, width: int) -> None:
        """Compare the settings with a head of `num_outputs` x `width` before anything is built.

        Raises:
            ConfigError: they do not fit.
        """

    def check_projection(self, projection: AbstractProjection) -> None:
        """Compare the settings with the projection, which has no shape yet, before the model is touched.

        Raises:
            ConfigError: the rule reads the matrix, and the projection is more than the product with it.
        """
        if self.reads_matrix and not projection.is_matrix:
            raise ConfigError(
                f"rule: {self.name} goes on from the matrix itself, and {projection.identity} is not the product with "
                "a matrix that can be read; expected a digital projection without an encoder (arm=dfa)"
            )

    def check_blocks(self, blocks: Sequence[str]) -> None:
        """Compare the settings with the names of the blocks that are fed, before the model is touched.

        Raises:
            ConfigError: they name blocks that there are not.
        """

    def electronic(self, projection: str, *, num_outputs: int, width: int) -> str:
        """What of the learning is electronic.

        Args:
            projection: the same of the projection, such as "all but the projection, which is optical".
        """
        return projection

    @abstractmethod
    def start(self, projection: AbstractProjection, model: nn.Module, head: nn.Module) -> AbstractFeedback:
        """Set to work; everything is checked before the model is touched.

        Raises:
            MatchError: the rule does not fit this head.
            ConfigError: the rule's settings do not fit this head.
        """
