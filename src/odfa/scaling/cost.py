"""What one training step costs: seconds, joules and bytes of a method on a processor with an OPU.

`StepTerms` holds one small property for each term; `step_cost` chooses what is kept and collects them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from odfa.flow import Light
from odfa.saved import Json
from odfa.scaling.memory import Need, Traffic, need, offload
from odfa.scaling.method import PRECISIONS, Activations, PlannedMethod, Precision, StepLayout
from odfa.scaling.opu import Beam, Opu, beam
from odfa.scaling.processor import Processor
from odfa.scaling.tally import Tally, matmul
from odfa.scaling.walk import Walk

WalkKey = tuple[str, Activations]
"""Names a walk: how blocks learn (bp, shallow, feedback), and what is kept of activations."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A walk, and the seconds that its two passes take on a processor."""

    walk: Walk
    forward_s: float
    backward_s: float


def pace(walk: Walk, processor: Processor) -> Pace:
    """Time of forward and backward pass of a walk on this processor."""
    return Pace(walk=walk, forward_s=processor.seconds(walk.forward), backward_s=processor.seconds(walk.backward))


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and its batch, walked in every way that the methods need, on one processor."""

    paces: Mapping[WalkKey, Pace]
    processor: Processor
    tokens: float
    """Rows of the output error in a step: tokens, or samples."""
    sequences: float
    """Sequences in a step; as many as rows where there are none."""
    vectors_per_row: float = 1.0
    """Vectors that the rule projects for each row of the error; 0 for a rule that projects none in a step."""

    @property
    def parameters(self) -> float:
        """Number of trained parameters."""
        return next(iter(self.paces.values())).walk.parameters

    def scaled(self, factor: float) -> "Model":
        """The same on a processor whose rates and links are `factor` times as high."""
        paces = {
            key: replace(pace, forward_s=pace.forward_s / factor, backward_s=pace.backward_s / factor)
            for key, pace in self.paces.items()
        }
        return replace(self, processor=self.processor.scaled(factor), paces=paces)


@dataclass(frozen=True, kw_only=True)
class StepTerms:
    """A method applied: every term of its cost by itself, each device's share where devices share the work."""

    model: Model
    method: PlannedMethod
    opu: Opu
    layout: StepLayout
    activations: Activations
    """What is kept of activations: all, block inputs, or none."""

    @property
    def processor(self) -> Processor:
        """The processor of every device."""
        return self.model.processor

    @property
    def precision(self) -> Precision:
        """Bytes that a parameter takes: weight, gradient, optimiser states."""
        return PRECISIONS[self.layout.precision]

    @property
    def pace(self) -> Pace:
        """Walk and seconds of this way to learn and to keep activations."""
        return self.model.paces[self.method.learning, self.activations]

    @property
    def walk(self) -> Walk:
        """The walk of this way to learn and to keep activations."""
        return self.pace.walk

    @property
    def unsaved(self) -> tuple[float, float]:
        """Seconds and operations that feedback saves in backward, added again where that saving is switched off."""
        if "saved_backward" not in self.layout.off or self.method.learning != "feedback":
            return 0.0, 0.0
        bp, ours = self.model.paces["bp", "keep"], self.model.paces["feedback", "keep"]
        return bp.backward_s - ours.backward_s, bp.walk.backward.flops - ours.walk.backward.flops

    @property
    def vectors(self) -> float:
        """Error vectors that are projected: one for each token, sequence or batch."""
        if "fewer_vectors" in self.layout.off:
            return self.model.vectors_per_row * self.model.tokens
        summed = {"token": self.model.tokens, "sequence": self.model.sequences, "batch": 1.0}[self.layout.vectors]
        return self.model.vectors_per_row * summed

    @cached_property
    def beam(self) -> Beam | None:
        """Frames and times of the error vectors on the OPU; None without one, or where no vector is projected.

        Raises:
            Incompatible: it has too few mirrors or pixels.
        """
        if self.method.projection != "optical" or not self.vectors:
            return None
        return beam(self.opu, round(self.walk.row_width), round(self.walk.signal_width))

    @property
    def projected(self) -> Tally:
        """The digital product of N x D by D x M; an empty tally for light, or where nothing is projected."""
        if self.method.projection != "digital" or not self.vectors:
            return Tally()
        return matmul(self.vectors, self.walk.row_width, self.walk.signal_width, element_bytes=4)

    @cached_property
    def needed(self) -> Need:
        """Bytes of one device at the fullest moment."""
        stored = 4 * self.walk.row_width * self.walk.signal_width if self.method.projection == "digital" else 0.0
        fused = self.activations == "stream"
        return need(self.walk, self.precision, self.layout.devices, fused=fused, projection=stored)

    @cached_property
    def traffic(self) -> Traffic:
        """What crosses the link because it does not fit, per device and step."""
        if "offloading" in self.layout.off:
            return Traffic()
        if not self.method.offload:
            return Traffic(fits=self.needed.total <= self.processor.memory_bytes)
        depth = max(1.0, self.walk.depth / self.layout.devices)
        return offload(self.needed, self.precision, self.processor.memory_bytes, depth)

    @property
    def forward_s(self) -> float:
        """Seconds of the forward pass of all rows."""
        return self.pace.forward_s / self.layout.devices

    @property
    def backward_s(self) -> float:
        """Seconds of the backward pass of all rows, with the blocks that run again in it."""
        return (self.pace.backward_s + self.unsaved[0]) / self.layout.devices

    @property
    def update_s(self) -> float:
        """Seconds of the optimiser's kernels and of each tensor's norm, without the share that the host does."""
        whole_s = self.processor.seconds(update(self.walk, self.precision))
        return (1 - self.traffic.host_share) * whole_s / self.layout.devices

    @property
    def projection_s(self) -> float:
        """Seconds of the digital projection, which every device computes for itself."""
        return self.processor.seconds(self.projected)

    @property
    def light_s(self) -> float:
        """N k / f on the OPUs together, f the rate at the rows that are read, and the first answer's latency."""
        if self.beam is None:
            return 0.0
        return self.vectors * self.beam.vector_s / self.layout.opus + self.opu.latency_s

    @property
    def broadcast_s(self) -> float:
        """Seconds of sending the error to the other devices, 2 bits an entry for light, else at full precision; and of
        sending them the signals that light gives back, which every device needs for all rows."""
        if self.layout.devices == 1 or self.method.learning != "feedback":
            return 0.0
        optical = self.method.projection == "optical"
        error = self.walk.row_width * (2 / 8 if optical else self.precision.weight)
        signals = self.walk.signal_width * self.precision.weight if optical else 0.0
        return self.vectors * (error + signals) / self.processor.network_bytes_per_s

    @property
    def handovers_s(self) -> float:
        """Seconds of sending the activations of all rows from one device to the next; as wide as a block's signal."""
        if self.layout.devices == 1:
            return 0.0
        width = self.model.paces["feedback", "keep"].walk.signal_width
        return self.model.tokens * width * self.precision.weight / self.processor.network_bytes_per_s

    @property
    def crossings_s(self) -> float:
        """Seconds of sending the sums of the hops from one device to the one before it, in the mean of the steps; the
        input gradients that are summed are a part of `backward_s`."""
        hops = self.walk.crossings if self.method.learning == "feedback" else 0.0
        return hops * self.handovers_s

    @property
    def link_s(self) -> float:
        """Seconds of the traffic on the link to the host."""
        return self.traffic.link_bytes / self.processor.link_bytes_per_s

    @property
    def host_s(self) -> float:
        """Seconds of the host's update of the states that it holds, bound by its memory."""
        return self.traffic.host_bytes / self.processor.host_bytes_per_s

    @cached_property
    def parts_s(self) -> dict[str, float]:
        """Seconds of every term by name."""
        names = (
            "forward",
            "backward",
            "update",
            "projection",
            "light",
            "broadcast",
            "handovers",
            "crossings",
            "link",
            "host",
        )
        return {name: float(getattr(self, f"{name}_s")) for name in names}

    @cached_property
    def step_s(self) -> float:
        """How the terms follow one another: S devices, m microbatches of forward f, backward b, projection p, light r.

        Backpropagation locks:  (m + S - 1)(f + b). Feedback does not: the forward pass fills the pipeline once,
        projected errors come back one microbatch after the other, and all devices learn at once. The step is the
        longest of
            the last device's work:    (m + S - 1) f + m (p + b)
            the light's work:          S f + m r + b
            the last microbatch's way: (m + S - 1) f + r + p + b,
        or the sum where nothing overlaps. With hops, b holds the input gradients of the hops and a send of their sums
        for each; all devices work on a hop at once, and its sums then travel S - 1 devices, which ends every way. The
        link works beside all that; the host's update comes after it.
        """
        # The terms are of the whole batch, the formulas of one microbatch: hence the divisions by m.
        m, stages = self.layout.microbatches, self.layout.devices
        filled_s = (m + stages - 1) * (self.forward_s + self.handovers_s) / m
        if self.method.learning != "feedback":
            handed_back_s = self.handovers_s if self.method.learning == "bp" else 0.0
            computing_s = filled_s + (m + stages - 1) * (self.backward_s + handed_back_s) / m
        else:
            locked = "parallel_blocks" in self.layout.off
            sent_s = self.crossings_s / m
            b = self.backward_s / m * ((m + stages - 1) / m if locked else 1.0) + sent_s
            # the latency passes once a step, not once a microbatch: answers follow one another from the first one on
            latency_s = 0.0 if self.beam is None else self.opu.latency_s
            p, r = self.projection_s / m, (self.light_s - latency_s + self.broadcast_s) / m
            first_s = stages * (self.forward_s + self.handovers_s) / m
            # one of the S - 1 sends is in b; without hops none is added, and one device sends nothing
            travel_s = max(0, stages - 2) * sent_s
            if "overlap" in self.layout.off:
                computing_s = filled_s + m * (latency_s + r + p + b) + travel_s
            else:
                lit_s = max(first_s + m * r + b, filled_s + r + p + b) + latency_s
                computing_s = max(filled_s + m * (p + b), lit_s) + travel_s
        return max(computing_s + self.update_s, self.link_s) + self.host_s

    @property
    def flops(self) -> float:
        """Operations of matrix products and attention, of all devices."""
        return (self.walk.forward + self.walk.backward + self.projected).flops + self.unsaved[1]

    @cached_property
    def energies_j(self) -> dict[str, float]:
        """Joules by kind: idle power for the whole step, energy per operation and per byte, OPUs on all the time."""
        # dynamic energy follows the work and not the time: devices that wait for one another only draw idle power
        processor, layout = self.processor, self.layout
        all_of_it = self.walk.forward + self.walk.backward + self.projected + update(self.walk, self.precision)
        return {
            "idle": layout.devices * processor.idle_w * self.step_s,
            "arithmetic": self.flops * processor.flop_j,
            "memory": all_of_it.num_bytes * processor.memory_j_per_byte,
            "link": layout.devices * self.traffic.link_bytes * processor.link_j_per_byte,
            "opu": 0.0 if self.beam is None else layout.opus * self.opu.power_w * self.step_s,
        }


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one step of one method. Times of the parts may overlap; `step_s` is the time of the whole step."""

    method: str
    step_s: float
    parts_s: dict[str, float]
    energies_j: dict[str, float]
    memory: Need
    fits: bool
    """Whether every device holds its share, after what may be moved has been moved."""
    traffic: Traffic
    activations: Activations
    light: Light
    flops: float

    @property
    def energy_j(self) -> float:
        """Energy of the step: the sum of `energies_j`, joules."""
        return sum(self.energies_j.values())

    @property
    def limit(self) -> str:
        """Name of the part that takes longest."""
        return max(self.parts_s, key=lambda name: self.parts_s[name])

    def to_json(self) -> Json:
        """The cost as JSON holds it, a row of a plan."""
        light = vars(self.light)
        return {
            "method": self.method,
            "step_s": self.step_s,
            "parts_s": self.parts_s,
            "energy_j": self.energy_j,
            "energies_j": self.energies_j,
            "memory_bytes": {**vars(self.memory), "total": self.memory.total},
            "fits": self.fits,
            "link_bytes": self.traffic.link_bytes,
            "activations": self.activations,
            "light": {**light, "utilisation": self.light.utilisation},
            "limit": self.limit,
        }


def step_cost(model: Model, method: PlannedMethod, opu: Opu, layout: StepLayout) -> Cost:
    """One step of a method; one that offloads keeps or streams activations, whichever fits and is faster.

    Raises:
        Incompatible: the OPU has too few mirrors or pixels for the error and the signals.
    """
    steps = [
        StepTerms(model=model, method=method, opu=opu, layout=layout, activations=kept)
        for kept in _ways(model, method, layout)
    ]
    # what fits comes before what is fast: a step that does not fit never runs
    step = min(steps, key=lambda way: (not way.traffic.fits, way.step_s))
    return Cost(
        method=method.name,
        step_s=step.step_s,
        parts_s=step.parts_s,
        energies_j=step.energies_j,
        memory=step.needed,
        fits=step.traffic.fits,
        traffic=step.traffic,
        activations=step.activations,
        light=Light() if step.beam is None else step.beam.light(step.vectors),
        flops=step.flops,
    )


def _ways(model: Model, method: PlannedMethod, layout: StepLayout) -> list[Activations]:
    """The ways of keeping activations that a method may choose between."""
    if not method.offload or "offloading" in layout.off:
        return [method.activations]
    if method.learning == "bp":
        return ["recompute" if "moved_activations" in layout.off else method.activations]
    both: tuple[Activations, ...] = ("keep", "stream")
    return [kept for kept in both if (method.learning, kept) in model.paces]


def update(walk: Walk, precision: Precision) -> Tally:
    """Adam reads weight, gradient and states and writes weight and states, all in one call; the gradients' norm reads
    them once more, in a call for each tensor."""
    each = 2 * precision.weight + 2 * precision.gradient + 2 * precision.state
    return Tally(num_bytes=each * walk.updated, calls=1 + walk.tensors)
