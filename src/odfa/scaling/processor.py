"""What a processor can do: rates, sizes and powers, of the machine at hand (fitted) and of others (from data sheets).

Presets for other processors take a share of the data sheet's peak as sustained; `uncertainty` is how far that share may
be off. Add a row to `PROCESSORS`, name a function of your own (`processor=package.module:function`), or set any field
in words: `processor.link_bytes_per_s=12e9`.
"""

from dataclasses import dataclass, replace
from functools import partial

from odfa.scaling.tally import Tally
from odfa.settings import SettingError, Settings, named
from odfa.units import check_fields


@dataclass(frozen=True, kw_only=True)
class Processor(Settings, kind="processor", room="odfa.scaling.processor", group="odfa.processors"):
    """One processor with its memory, the host that it is attached to, and its links."""

    name: str
    """What it is called in tables."""
    source: str
    """Where the figures come from, and which of them are assumed."""
    matmul_flops_per_s: float
    """Sustained rate of matrix products, 2 operations per multiplication and addition."""
    attention_flops_per_s: float
    """Sustained rate of attention kernels, counted in the same way."""
    bytes_per_s: float
    """Sustained rate of reading and writing memory."""
    call_s: float
    """Time of a kernel call that does nothing."""
    memory_bytes: float
    """Memory of the processor itself, bytes."""
    link_bytes_per_s: float
    """Link to the host's memory, each way."""
    host_bytes_per_s: float
    """Rate at which the host reads and writes its own memory (an offloaded optimiser is bound by it)."""
    network_bytes_per_s: float
    """Link to the next processor, each way."""
    power_w: float
    """Electrical power with everything at its sustained rate."""
    idle_w: float
    """Electrical power while it waits."""
    memory_j_per_byte: float
    """Energy of moving one byte from or to its memory; part of `power_w`."""
    link_j_per_byte: float = 1e-10
    """Energy of moving one byte over the link, both ends."""
    uncertainty: float = 0.1
    """Relative uncertainty of its rates."""
    twin_vector_s: float = 0.0
    """Digital twin on this processor: time per error row beside what follows; 0 where it has not been measured."""
    twin_entry_s: float = 0.0
    """Twin: time per entry of an error row."""
    twin_product_s: float = 0.0
    """Twin: time per entry of an error row and output."""
    twin_pixel_s: float = 0.0
    """Twin: time per camera pixel read."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.idle_w < self.power_w - self.bytes_per_s * self.memory_j_per_byte:
            raise SettingError(
                "idle_w",
                f"idle power {self.idle_w:g} W and full memory traffic, "
                f"{self.bytes_per_s * self.memory_j_per_byte:g} W, leave nothing of power_w={self.power_w:g} W",
            )

    def scaled(self, factor: float) -> "Processor":
        """One whose rates and links are `factor` times as high, at the same energy per operation and byte."""
        dynamic_w = self.power_w - self.idle_w
        return replace(
            self,
            matmul_flops_per_s=factor * self.matmul_flops_per_s,
            attention_flops_per_s=factor * self.attention_flops_per_s,
            bytes_per_s=factor * self.bytes_per_s,
            call_s=self.call_s / factor,
            link_bytes_per_s=factor * self.link_bytes_per_s,
            host_bytes_per_s=factor * self.host_bytes_per_s,
            network_bytes_per_s=factor * self.network_bytes_per_s,
            power_w=self.idle_w + factor * dynamic_w,
        )

    @property
    def flop_j(self) -> float:
        """Energy of one operation: at full arithmetic and full memory traffic the processor draws `power_w`."""
        arithmetic_w = self.power_w - self.idle_w - self.bytes_per_s * self.memory_j_per_byte
        return arithmetic_w / self.matmul_flops_per_s

    def seconds(self, tally: Tally) -> float:
        """Time of kernels one after the other: operations, bytes and calls at their rates, and nothing overlaps."""
        # The sum rather than the largest of the four: kernels of a step follow one another, each bound by another rate,
        # and a small one by none but its call.
        return (
            tally.matmul_flops / self.matmul_flops_per_s
            + tally.attention_flops / self.attention_flops_per_s
            + tally.num_bytes / self.bytes_per_s
            + tally.calls * self.call_s
        )


_HBM = 3.1e-11
"""Joules per byte of HBM2: about 4 pJ a bit (O'Connor et al., MICRO 2017)."""
_DDR = 1.5e-10
"""Joules per byte of DDR4, about 19 pJ a bit; assumed."""

_ASSUMED = "assumed: 45 % of peak sustained, 80 % of the memory's and the link's rates, idle power, host 100 GB/s"


def _gpu(
    name: str,
    sheet: str,
    peak_flops_per_s: float,
    peak_bytes_per_s: float,
    memory_bytes: float,
    link_bytes_per_s: float,
    network_bytes_per_s: float,
    power_w: float,
) -> Processor:
    """A GPU by its data sheet, dense 16-bit matrix products."""
    return Processor(
        name=name,
        source=f"{sheet}; {_ASSUMED}",
        matmul_flops_per_s=0.45 * peak_flops_per_s,
        attention_flops_per_s=0.3 * peak_flops_per_s,
        bytes_per_s=0.8 * peak_bytes_per_s,
        call_s=4e-6,
        memory_bytes=memory_bytes,
        link_bytes_per_s=0.8 * link_bytes_per_s,
        host_bytes_per_s=100e9,
        network_bytes_per_s=0.8 * network_bytes_per_s,
        power_w=power_w,
        idle_w=0.2 * power_w,
        memory_j_per_byte=_HBM,
        uncertainty=0.3,
    )


PROCESSORS: dict[str, Processor] = {
    processor.name: processor
    for processor in (
        _gpu("v100", "NVIDIA V100 SXM2 data sheet: 125 TFLOPS tensor, 32 GB at 900 GB/s, PCIe 3 x16, 300 W, NVLink 2",
             125e12, 900e9, 32e9, 15.75e9, 150e9, 300.0),
        _gpu("a100", "NVIDIA A100 SXM4 data sheet: 312 TFLOPS bf16, 80 GB at 2,039 GB/s, PCIe 4 x16, 400 W, NVLink 3",
             312e12, 2039e9, 80e9, 31.5e9, 300e9, 400.0),
        _gpu("h100", "NVIDIA H100 SXM5 data sheet: 989 TFLOPS bf16, 80 GB at 3,350 GB/s, PCIe 5 x16, 700 W, NVLink 4",
             989.4e12, 3350e9, 80e9, 63e9, 450e9, 700.0),
        Processor(
            name="reference",
            source="no product: 1e14 FLOP/s sustained in everything, memory that never limits, and no cost of calls; "
                   "for arithmetic that can be followed by hand",
            matmul_flops_per_s=1e14,
            attention_flops_per_s=1e14,
            bytes_per_s=1e16,
            call_s=0.0,
            memory_bytes=40e9,
            link_bytes_per_s=16e9,
            host_bytes_per_s=100e9,
            network_bytes_per_s=100e9,
            power_w=400.0,
            idle_w=50.0,
            memory_j_per_byte=0.0,
        ),
        Processor(
            name="xeon-2",
            source="two cores of an Intel Xeon shared with others, float32: fitted by `odfa study measure`; "
                   "assumed: power, a share of the socket's, and the links",
            matmul_flops_per_s=2.5e11,
            attention_flops_per_s=1.5e11,
            bytes_per_s=1.5e10,
            call_s=6e-6,
            memory_bytes=24e9,
            link_bytes_per_s=2e9,
            host_bytes_per_s=1.5e10,
            network_bytes_per_s=1.25e9,
            power_w=20.0,
            idle_w=5.0,
            memory_j_per_byte=_DDR,
        ),
    )
}  # fmt: skip
"""Preset processors by name."""
Processor.presets = {name: partial(PROCESSORS.__getitem__, name) for name in PROCESSORS}


def get_processor(name: str) -> Processor:
    """A preset, or what `package.module:Name` names.

    Raises:
        ConfigError: there is none of that name; the message gives the nearest ones.
    """
    return named(Processor, name)
