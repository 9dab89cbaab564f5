"""The scaling study: what each way of training families of GPTs costs, from which size light is faster, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from odfa.errors import ConfigError, Incompatible
from odfa.saved import Json
from odfa.scaling.cost import Model, step_cost
from odfa.scaling.crossover import Race, attribution, band, crossing, crossing_json, joules, made_by, races
from odfa.scaling.family import FAMILIES, Gpt, members
from odfa.scaling.method import PLANNED_METHODS, StepLayout
from odfa.scaling.model import model_of, walks_of_gpt
from odfa.scaling.opu import OPUS, Opu, get_opu
from odfa.scaling.processor import Processor, get_processor
from odfa.settings import SettingError, Settings, require, require_counts

Vectors = Literal["token", "sequence", "batch"]


@dataclass(frozen=True, kw_only=True)
class StudySettings(Settings):
    """Families, processors, OPUs and batches that the study computes every combination of."""

    families: tuple[str, ...] = tuple(FAMILIES)
    """Shapes: deep (width 512), wide (24 blocks), both (128 times as wide as deep)."""
    processors: tuple[str, ...] = ("v100", "a100", "h100")
    """Processors: presets, or package.module:Name."""
    opus: tuple[str, ...] = tuple(OPUS)
    """OPUs: presets, or package.module:Name; the points are of the first."""
    vectors: tuple[Vectors, ...] = ("token", "sequence")
    """Error vectors of a step: one for each token, sequence or batch."""
    tokens: int = 8192
    """Tokens in a step, on all devices together."""
    context: int = 1024
    """Tokens in a sequence."""
    vocabulary: int = 8192
    """Width of the output error."""
    granularity: Literal["block", "sublayer", "linear"] = "block"
    """What learns by itself: whole blocks, attention and MLP, or linear layers."""
    devices: int = 1
    """Processors in a pipeline."""
    microbatches: int = 1
    """Parts of the batch that follow one another."""
    precision: Literal["float32", "bfloat16", "mixed"] = "mixed"
    """Bytes per parameter: float32 16, bfloat16 8, mixed 16 of which 12 are the optimiser's."""

    def __post_init__(self) -> None:
        require_counts(self, "tokens", "devices", "microbatches")
        for family in self.families:
            require(family in FAMILIES, "families", f"some of {', '.join(FAMILIES)}", family)
        for key, names, get in (("processors", self.processors, get_processor), ("opus", self.opus, get_opu)):
            for name in names:
                try:
                    get(name)
                except ConfigError as error:
                    raise SettingError(key, str(error)) from error
        assert self.like  # its sizes are checked where it is made

    @property
    def like(self) -> Gpt:
        """A GPT with the batch that all members of the families learn from."""
        return Gpt(depth=1, width=64, tokens=self.tokens, context=self.context, vocabulary=self.vocabulary)

    def layout(self, vectors: Vectors) -> StepLayout:
        """Layout of a step of every member, with these error vectors."""
        return StepLayout(
            vectors=vectors, devices=self.devices, microbatches=self.microbatches, precision=self.precision
        )


def curve(config: StudySettings, family: str, processor: Processor) -> list[tuple[Gpt, Model]]:
    """The members of a family on a processor; nothing is allocated."""
    sequences = config.tokens / config.context
    return [
        (gpt, model_of(walks_of_gpt(gpt, config.precision, config.granularity), processor, sequences))
        for gpt in members(family, config.like)
    ]


def points(config: StudySettings, family: str, processor: Processor, opu: Opu) -> Iterator[Json]:
    """One row for each member and method, per step and per token."""
    layout = config.layout(config.vectors[0])
    for gpt, model in curve(config, family, processor):
        for name, method in PLANNED_METHODS.items():
            row: Json = {
                "family": family,
                "processor": processor.name,
                "opu": opu.name if method.projection == "optical" else None,
                "vectors": layout.vectors,
                "parameters": round(model.parameters),
                "depth": gpt.depth,
                "width": gpt.width,
                "method": name,
                "measured_s": None,
            }
            # a member too wide for the OPU stays in the table, without figures and with the reason
            try:
                found = step_cost(model, method, opu, layout)
            except Incompatible as error:
                yield {**row, "predicted_s": None, "energy_j": None, "why": str(error)}
                continue
            yield {
                **row,
                "predicted_s": found.step_s,
                "energy_j": found.energy_j,
                "predicted_s_per_token": found.step_s / config.tokens,
                "energy_j_per_token": found.energy_j / config.tokens,
                "fits": found.fits,
                "limit": found.limit,
            }


def crossovers(config: StudySettings) -> tuple[list[Json], Json]:
    """Every comparison with its band, in time and in energy; and, by its name, the crossing without each term."""
    rows, without = [], {}
    for family, processor_name in product(config.families, config.processors):
        models = [model for _, model in curve(config, family, get_processor(processor_name))]
        for race, offloading in _races(config, models):
            # the same race with each term switched off in turn says which term makes it cross
            name = name_of(family, race)
            found, terms = band(race), attribution(race)
            rows.append(
                {
                    "name": name,
                    "family": family,
                    "processor": models[0].processor.name,
                    "opu": race.opu.name,
                    "vectors": race.layout.vectors,
                    "offloading": offloading,
                    "challenger": race.challenger,
                    "baseline": race.baseline,
                    **crossing_json(found.found),
                    "low": crossing_json(found.early),
                    "high": crossing_json(found.late),
                    "energy": crossing_json(crossing(race, joules)),
                    "made_by": made_by(found.found, terms),
                }
            )
            without[name] = {switch: crossing_json(crossed) for switch, crossed in terms.items()}
    return rows, without


def name_of(family: str, race: Race) -> str:
    """Name of a comparison: family/processor/OPU/vectors/challenger vs baseline."""
    processor = race.models[0].processor.name
    return f"{family}/{processor}/{race.opu.name}/{race.layout.vectors}/{race.challenger} vs {race.baseline}"


def _races(config: StudySettings, models: Sequence[Model]) -> Iterator[tuple[Race, bool]]:
    layouts = [config.layout(vectors) for vectors in config.vectors]
    for name, offloading in product(config.opus, (False, True)):
        for race in races(models, get_opu(name), layouts, offloading=offloading):
            yield race, offloading


STATEMENTS = (
    ("saved arithmetic alone, one vector per token, linear layers", "linear", "token", False, "bp"),
    ("saved arithmetic alone, one vector per token, blocks", "block", "token", False, "bp"),
    ("saved arithmetic alone, one vector per sequence, blocks", "block", "sequence", False, "bp"),
    ("one vector per token, against activations that are moved", "block", "token", True, "bp+offloading"),
    ("one vector per token, against the fastest backpropagation", "block", "token", True, "fastest bp"),
)
"""Comparisons on the reference processor, 1e14 FLOP/s: text, granularity, vectors, offloading, baseline."""


def statements(config: StudySettings) -> list[Json]:
    """Crossovers that can be followed by hand, in the deep family on the reference processor with opu-2021."""
    rows = []
    for text, granularity, vectors, offloading, baseline in STATEMENTS:
        chosen = replace(config, granularity=granularity, devices=1, microbatches=1)  # type: ignore[arg-type]
        models = [model for _, model in curve(chosen, "deep", get_processor("reference"))]
        layout = chosen.layout(vectors)  # type: ignore[arg-type]
        choices = races(models, get_opu("opu-2021"), [layout], offloading=offloading)
        race = next(race for race in choices if race.baseline == baseline)
        found = band(race)
        rows.append(
            {
                "statement": text,
                **crossing_json(found.found),
                "low": crossing_json(found.early),
                "high": crossing_json(found.late),
                "made_by": made_by(found.found, attribution(race)),
            }
        )
    return rows


def run_study(config: StudySettings) -> Json:
    """The study's points, crossovers, their attribution, and statements that can be checked by hand.

    Raises:
        ConfigError: names that do not exist, a batch that is no whole number of sequences.
    """
    opu = get_opu(config.opus[0])
    rows = [
        row
        for family, name in product(config.families, config.processors)
        for row in points(config, family, get_processor(name), opu)
    ]
    crossed, without = crossovers(config)
    return {"points": rows, "crossovers": crossed, "attribution": without, "statements": statements(config)}
