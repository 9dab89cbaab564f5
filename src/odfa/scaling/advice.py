"""What to change first: words of `odfa plan` that make odfa faster, each applied by itself."""

from collections.abc import Iterator
from dataclasses import dataclass

from odfa.demodulate import OffAxisSettings
from odfa.errors import ConfigError, Incompatible
from odfa.saved import Json
from odfa.scaling.cost import Cost, Model, step_cost
from odfa.scaling.method import PLANNED_METHODS, PlannedMethod
from odfa.scaling.model import model_of
from odfa.scaling.plan_settings import PlanSettings
from odfa.scaling.processor import Processor
from odfa.settings import apply

_FASTEST_HZ = 1e5
"""Rate from which no OPU twice as fast is proposed."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a plan: what it is, and the words that make it."""

    what: str
    words: tuple[str, ...]
    but: str = ""
    """What speaks against it."""

    @property
    def text(self) -> str:
        """For people: the change and its words."""
        return f"{self.what} ({' '.join(self.words)}{self.but and f'; {self.but}'})"


def proposed(model: Model, config: PlanSettings) -> list[Json]:
    """Changes that make odfa faster, each by itself, the best first; those that gain less than 2 % are left out."""
    now = _best(model, config)
    found = []
    for change in _changes(config, model.paces["feedback", "keep"].walk.depth):
        try:
            changed = apply(config, change.words)
            then = _best(model if changed.processor == config.processor else _on(model, changed.processor), changed)
        except (ConfigError, Incompatible):  # no plan can be made so: more OPUs than a plan takes, say
            continue
        if then.step_s < 0.98 * now.step_s:
            times = now.step_s / then.step_s
            found.append(
                {"change": change.text, "settings": [*change.words], "step_s": then.step_s, "times_as_fast": times}
            )
    return sorted(found, key=lambda row: row["step_s"])


def _best(model: Model, config: PlanSettings) -> Cost:
    ways: list[PlannedMethod] = [PLANNED_METHODS["odfa"], PLANNED_METHODS["odfa+offloading"]]
    return min(
        (step_cost(model, way, config.opu, config.layout) for way in ways), key=lambda row: (not row.fits, row.step_s)
    )


def _on(model: Model, processor: Processor) -> Model:
    walks = {key: pace.walk for key, pace in model.paces.items()}
    return model_of(walks, processor, model.sequences, rows=model.tokens)


def _changes(config: PlanSettings, blocks: float) -> Iterator[Change]:
    """Changes that are still possible; each is made alone, so that its own effect is seen."""
    layout, opu, processor = config.layout, config.opu, config.processor
    if layout.vectors == "token":
        unknown = "learning with it is not shown"
        yield Change(what="one error vector per sequence", words=("vectors=sequence",), but=unknown)
    if not isinstance(opu.demodulator, OffAxisSettings):
        yield Change(what="off-axis holography, two frames a vector", words=("opu.demodulator=offaxis",))
    yield Change(what=f"{2 * layout.opus} OPUs", words=(f"opus={2 * layout.opus}",))
    if opu.rate_hz < _FASTEST_HZ:
        fast = opu.scaled(2.0)
        names = ("rate_hz", "exposure_s", "row_s", "overhead_s", "margin_s", "link_bytes_per_s")
        words = [f"opu.{rate}={getattr(fast, rate)}" for rate in names if getattr(fast, rate) != getattr(opu, rate)]
        yield Change(what="an OPU twice as fast", words=tuple(words))
    if layout.microbatches == 1:
        yield Change(what="eight microbatches, so that light and compute overlap", words=("microbatches=8",))
    if 2 * layout.devices <= blocks:
        yield Change(what=f"{2 * layout.devices} devices", words=(f"devices={2 * layout.devices}",))
    rates = {"link_bytes_per_s": "a link of twice the rate", "memory_bytes": "a processor of twice the memory"}
    for name, what in rates.items():
        yield Change(what=what, words=(f"processor.{name}={2 * getattr(processor, name)}",))
