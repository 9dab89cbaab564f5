"""GPTs as settings: those that the study times, those that it models, and families of 10 million to 1e12 parameters."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from odfa.data import DataShape
from odfa.engine import AlignedHead, RandomFeedback
from odfa.errors import ConfigError
from odfa.project import OpticalSettings
from odfa.session import FeedbackSettings, MemorySettings, RunConfig
from odfa.session.config import Granularity
from odfa.settings import require, require_counts
from odfa.tasks.language.language import Language
from odfa.tasks.language.text import TextData
from odfa.tasks.language.transformer import Gpt2Network

HEAD_WIDTH = 64
"""Width of an attention head, as in GPT-2."""
_SAMPLES = 2**40
"""Training samples that the data claims to have, more than any batch needs: nothing is loaded."""


@dataclass(frozen=True, kw_only=True)
class Gpt:
    """A GPT-2 and the batch it learns from; the head has weights of its own."""

    depth: int
    """Number of transformer blocks."""
    width: int
    """Width of the residual stream, a multiple of the heads' width."""
    tokens: int
    """Tokens in a step, of all sequences together."""
    context: int = 256
    """Tokens in one sequence."""
    vocabulary: int = 2048
    """Number of different tokens, the width of the logits."""
    hops: int = 0
    """Hops of credit across the blocks."""
    hop_every: int = 1
    """Steps of which one computes the hops."""
    head_rows: int | None = None
    """Tokens whose logits are there at a time; None: all of a step."""

    def __post_init__(self) -> None:
        require_counts(self, "depth", "width", "tokens", "context", "vocabulary", "hop_every", "head_rows")
        require(self.hops > 0 or self.hop_every == 1, "hop_every", "1, as hops=0 computes none", self.hop_every)
        fits = self.width % HEAD_WIDTH == 0
        require(fits, "width", f"a multiple of {HEAD_WIDTH}, the width of a head", self.width)
        require(self.tokens % self.context == 0, "tokens", f"whole sequences of {self.context} tokens", self.tokens)

    @property
    def shape(self) -> DataShape:
        """Sizes of a corpus that is never read."""
        return DataShape(
            num_features=self.context,
            num_classes=self.vocabulary,
            num_train=_SAMPLES,
            num_validation=1,
            num_test=1,
        )

    def run(self, *, memory: MemorySettings | None = None, granularity: Granularity = "block") -> RunConfig:
        """The run that learns it; feedback is random, one slice for all blocks, and the error is read at the logits.

        Hops need a signal at the head's input: with them the head is aligned.
        """
        return RunConfig(
            recipe="gpt",
            task=Language(),
            batch_size=self.tokens // self.context,
            network=Gpt2Network(width=self.width, layers=self.depth, heads=self.width // HEAD_WIDTH),
            data=TextData(vocabulary=self.vocabulary, context=self.context),
            rule=AlignedHead(hops=self.hops, hop_every=self.hop_every) if self.hops else RandomFeedback(shared=True),
            projection=OpticalSettings(guard=None),
            feedback=FeedbackSettings(granularity=granularity),
            memory=memory or MemorySettings(head_rows=self.head_rows),
        )

    @property
    def parameters(self) -> int:
        """Trained numbers: embeddings of tokens and positions, blocks, final norm, head."""
        block = 12 * self.width**2 + 13 * self.width
        return (2 * self.vocabulary + self.context + 2) * self.width + self.depth * block


def _deep(gpt: Gpt, parameters: float) -> tuple[int, int]:
    """Depth and width of a GPT of width 512 with this many parameters."""
    width = 512
    outside = Gpt(depth=1, width=width, tokens=gpt.tokens, context=gpt.context, vocabulary=gpt.vocabulary).parameters
    return max(1, 1 + round((parameters - outside) / (12 * width**2))), width


def _wide(gpt: Gpt, parameters: float) -> tuple[int, int]:
    """Depth and width of a GPT of 24 blocks with this many parameters."""
    # 12 · 24 width^2 + outside · width = parameters, solved for the width
    outside = 2 * gpt.vocabulary + gpt.context
    width = ((outside**2 + 4 * 12 * 24 * parameters) ** 0.5 - outside) / (2 * 12 * 24)
    return 24, _whole_heads(width)


def _both(gpt: Gpt, parameters: float) -> tuple[int, int]:
    """Depth and width of a GPT that is 128 times as wide as deep, as GPT-3 is, with this many parameters."""
    outside, width = 2 * gpt.vocabulary + gpt.context, 1.0
    for _ in range(100):  # Newton's method on 12 / 128 width^3 + outside · width = parameters
        value = 12 / 128 * width**3 + outside * width - parameters
        width -= value / (36 / 128 * width**2 + outside)
    width = _whole_heads(width)
    return max(1, round(width / 128)), width


def _whole_heads(width: float) -> int:
    return HEAD_WIDTH * max(1, round(width / HEAD_WIDTH))


FAMILIES: dict[str, Callable[[Gpt, float], tuple[int, int]]] = {"deep": _deep, "wide": _wide, "both": _both}
"""Depth and width for a number of parameters."""
SIZES = tuple(10 ** (7 + k / 2) for k in range(11))
"""Parameters of a family's members: 10 million to 1 trillion."""


def members(family: str, like: Gpt) -> list[Gpt]:
    """The members of a family, small to large, with the batch of `like`.

    Raises:
        ConfigError: no family of that name.
    """
    if family not in FAMILIES:
        raise ConfigError(f"family: expected {', '.join(FAMILIES)}, got {family!r}")
    sized = dict.fromkeys(FAMILIES[family](like, size) for size in SIZES)
    return [replace(like, depth=depth, width=width) for depth, width in sized]
