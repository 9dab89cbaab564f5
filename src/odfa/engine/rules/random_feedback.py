"""Direct feedback alignment: a slice of the projected error at every block's output."""

from dataclasses import dataclass

from odfa.engine.rules.placed import SlicedRule


@dataclass(frozen=True, kw_only=True)
class RandomFeedback(SlicedRule, kind="random"):
    """The paper's rule: s_l = scale / sqrt(K_l) * B_l e at the output of block l, B_l fixed and random.

    Source: Nøkland, arXiv 1609.01596; by light, arXiv 2409.12965.
    """

    by_rows = True
    label = "random feedback"
    colour = "#0072B2"
