"""What a plan of a recipe takes from the recipe, and sentences on what it assumes instead."""

from collections.abc import Iterator

from odfa.arms import DEFAULT_ARM, arm
from odfa.encode import Ternary
from odfa.engine.rules import AbstractRule
from odfa.project import GaussianSettings, OpticalSettings
from odfa.project.digital import DigitalSettings, build_encoder
from odfa.scaling.opu import Opu
from odfa.session import RunConfig
from odfa.settings import of_slot, tag_of


def assumed(run: RunConfig, opu: Opu) -> Iterator[str]:
    """Where dfa and odfa of a plan differ from the run: its rule, its digital matrix, the frames of its light.

    Widths and rows of the projection are those of the run's own rule, if that projects.
    """
    planned = arm(run, DEFAULT_ARM).rule
    if planned != run.rule:
        own, ours = tag_of(run.rule), tag_of(planned)
        yield f"dfa and odfa are planned with rule={ours}, as rule={own} of the recipe projects nothing"
    if (walked := plannable(planned)) != planned:
        yield (
            f"dfa and odfa are planned with rule={tag_of(walked)}: what rule={tag_of(planned)} computes beside the "
            "projection, from targets or when the optimiser steps, is left out"
        )
    projection = run.projection
    if isinstance(projection, DigitalSettings) and not isinstance(projection, GaussianSettings):
        yield f"dfa is planned with a dense matrix, not with projection={tag_of(projection)} of the recipe"
    if isinstance(projection, GaussianSettings) and not projection.stored:
        yield "dfa is planned with a stored matrix, not with projection.stored=false of the recipe"
    if isinstance(projection, OpticalSettings):
        patterns = build_encoder(projection.encoder, run.seed).patterns_per_sample
        theirs = projection.demodulator.build().exposures(patterns)
        ours_frames = opu.demodulator.build().exposures(Ternary().patterns_per_sample)
        if theirs != ours_frames:
            yield (
                f"odfa is planned with {_frames(ours_frames)} a vector (one ternary pattern pair, opu.demodulator="
                f"{tag_of(opu.demodulator)}); the recipe's encoder={tag_of(projection.encoder)} and demodulator="
                f"{tag_of(projection.demodulator)} take {_frames(theirs)}"
            )


def plannable(rule: AbstractRule) -> AbstractRule:
    """The rule, or the nearest in its place if it needs targets or steps, which a walk does not give: random feedback,
    or the aligned head for a rule that sets the head."""
    if not rule.needs & {"targets", "optimiser step"}:
        return rule
    return of_slot(AbstractRule, "aligned" if rule.sets_head else "random", before=rule)


def _frames(count: float) -> str:
    return f"{count:g} frames"
