"""Laws of the cost model: more work takes longer, nothing beats its bounds, terms add up, switches do what they say."""

import math
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfa.demodulate import OffAxis
from odfa.errors import ConfigError, Incompatible
from odfa.opu import Twin
from odfa.project import Optical
from odfa.scaling import (
    OPUS,
    PLANNED_METHODS,
    PROCESSORS,
    SWITCHES,
    Gpt,
    Model,
    Opu,
    StepLayout,
    beam,
    get_opu,
    get_processor,
    model_of,
    step_cost,
    walks_of_gpt,
)
from odfa.scaling.memory import need, offload
from odfa.scaling.method import PRECISIONS
from odfa.units import RANGES, range_of

OPU = OPUS["opu-2021"]
sizes = st.builds(
    Gpt,
    depth=st.integers(1, 12),
    width=st.sampled_from((64, 128)),
    tokens=st.just(64),  # and twice as many where they grow
    context=st.just(32),
    vocabulary=st.just(256),
)
layouts = st.builds(
    StepLayout,
    vectors=st.sampled_from(("token", "sequence", "batch")),
    devices=st.sampled_from((1, 2, 8)),
    microbatches=st.sampled_from((1, 4)),
    opus=st.sampled_from((1, 3)),
)
processors = st.sampled_from(list(PROCESSORS.values()))
methods = st.sampled_from(list(PLANNED_METHODS.values()))


def modelled(gpt: Gpt, processor="a100", precision: str = "mixed") -> Model:
    chosen = get_processor(processor) if isinstance(processor, str) else processor
    return model_of(walks_of_gpt(gpt, precision), chosen, gpt.tokens / gpt.context)


@cache
def big(family_width: int = 2560, depth: int = 32) -> Model:
    return modelled(Gpt(depth=depth, width=family_width, tokens=8192, context=1024, vocabulary=8192))


@settings(max_examples=20, deadline=None)
@given(
    gpt=sizes, layout=layouts, processor=processors, method=methods, grow=st.sampled_from(("depth", "width", "tokens"))
)
def test_time_grows_with_depth_width_and_tokens(gpt, layout, processor, method, grow):
    more = replace(gpt, **{grow: 2 * getattr(gpt, grow)})
    small, large = (step_cost(modelled(each, processor, layout.precision), method, OPU, layout) for each in (gpt, more))
    assert small.step_s <= large.step_s * (1 + 1e-12)
    assert small.memory.total <= large.memory.total


@settings(max_examples=60, deadline=None)
@given(gpt=sizes, layout=layouts, processor=processors, method=methods)
def test_no_method_beats_its_bounds(gpt, layout, processor, method):
    """Arithmetic, bytes and light by themselves, each at its best, and the link."""
    model = modelled(gpt, processor, layout.precision)
    found = step_cost(model, method, OPU, layout)
    walk = model.paces[method.learning, found.activations].walk
    fastest = max(processor.matmul_flops_per_s, processor.attention_flops_per_s)
    both = walk.forward + walk.backward
    assert found.step_s >= both.flops / fastest / layout.devices * (1 - 1e-9)
    assert found.step_s >= both.num_bytes / processor.bytes_per_s / layout.devices * (1 - 1e-9)
    assert found.step_s >= found.light.seconds / layout.opus * (1 - 1e-9)
    assert found.step_s >= found.traffic.link_bytes / processor.link_bytes_per_s * (1 - 1e-9)
    assert found.step_s <= sum(found.parts_s.values()) * layout.devices * 2 + 1e-9


@settings(max_examples=60, deadline=None)
@given(gpt=sizes, layout=layouts, processor=processors, method=methods)
def test_energy_is_never_negative_and_never_below_idling(gpt, layout, processor, method):
    found = step_cost(modelled(gpt, processor, layout.precision), method, OPU, layout)
    assert all(joules >= 0 for joules in found.energies_j.values())
    assert found.energy_j >= layout.devices * processor.idle_w * found.step_s
    assert (found.energies_j["opu"] > 0) == (method.projection == "optical")
    # arithmetic and memory traffic at their sustained rates draw the processor's power, no more
    busy_j = found.energies_j["arithmetic"] + found.energies_j["memory"] + found.energies_j["idle"]
    ceiling = max(1.0, processor.attention_flops_per_s / processor.matmul_flops_per_s)
    assert busy_j <= processor.power_w * found.step_s * layout.devices * ceiling * 1.001


def test_every_quantity_with_a_unit_is_within_its_range():
    for record in (*PROCESSORS.values(), *OPUS.values()):
        named = {name: value for name, value in vars(record).items() if range_of(name)}
        assert len(named) >= 6
        for name, value in named.items():
            low, high, _unit = range_of(name)
            assert low <= value <= high, name
    assert {"flops_per_s", "bytes_per_s", "memory_bytes", "j_per_byte"} <= set(RANGES)


def test_an_opu_is_the_twin_until_told_otherwise():
    ours, twin = Opu(name="mine", source="a test").twin().build(), Twin.preset("opu-2021")
    assert (ours.shape_dmd, ours.shape_cam) == (twin.shape_dmd, twin.shape_cam)
    assert (ours.rate_hz, ours.power_w, ours.exposure_s) == (twin.rate_hz, twin.power_w, twin.exposure_s)
    regions = [(1, 1), (300, 20), twin.shape_cam]
    assert [ours.frame_s(region) for region in regions] == [twin.frame_s(region) for region in regions]


def test_presets_say_where_they_come_from():
    for record in (*PROCESSORS.values(), *OPUS.values()):
        assert len(record.source) > 40


# light


@settings(max_examples=30, deadline=None)
@given(inputs=st.integers(1, 60_000), outputs=st.integers(1, 60_000))
def test_light_is_what_the_projection_of_training_would_spend(inputs, outputs):
    projection = Optical(Twin.preset("opu-2021"), demodulator=OffAxis()).shaped(inputs, outputs)
    spent, lit = projection.cost(50), beam(OPU, inputs, outputs).light(50)
    assert lit.frames == spent.frames
    assert lit.seconds == pytest.approx(spent.seconds, rel=1e-9)
    assert lit.joules == pytest.approx(spent.joules, rel=1e-9)
    assert lit.ops_useful == spent.ops_useful


def test_1500_teraops_at_30_watts_follow_from_mirrors_pixels_and_rates():
    reading_s = 1088 * 2.6875e-6 + 32.25e-6
    assert OPU.peak_ops_per_s == pytest.approx(2 * 912 * 1140 * 1088 * 2040 / (reading_s + 50e-6))
    assert OPU.peak_ops_per_s == pytest.approx(1.5e15, rel=0.03)
    assert OPU.power_w == 30
    assert OPU.power_w / OPU.peak_ops_per_s == pytest.approx(20e-15, rel=0.03)
    # what a thousand outputs of a thousand inputs use of it
    assert beam(OPU, 1000, 1000).light(1000).utilisation < 2e-6


@pytest.mark.parametrize(("outputs", "limit"), [(1000, "mirrors"), (60_000, "camera")])
def test_the_rate_falls_when_more_rows_are_read(outputs, limit):
    assert beam(OPU, 1000, outputs).limit == limit


def test_a_slow_link_sets_the_rate():
    slow = replace(OPU, link_bytes_per_s=1e6)
    assert beam(slow, 1000, 1000).limit == "link"
    assert beam(slow, 1000, 1000).frame_s == pytest.approx(912 * 1140 / 8 / 1e6)


def test_too_wide_an_error_is_refused_with_the_number_of_mirrors():
    with pytest.raises(Incompatible, match="1039680 mirrors"):
        beam(OPU, 2_000_000, 10)


# pipelines, overlap, offloading


def test_backpropagation_gains_nothing_from_devices_that_wait_for_each_other():
    one, eight = (step_cost(big(), PLANNED_METHODS["bp"], OPU, StepLayout(devices=devices)) for devices in (1, 8))
    assert eight.step_s - eight.parts_s["update"] >= one.step_s - one.parts_s["update"]
    light = StepLayout(devices=8, vectors="batch")
    ours = step_cost(big(), PLANNED_METHODS["odfa"], OPU, light)
    locked = step_cost(big(), PLANNED_METHODS["odfa"], OPU, replace(light, off=("parallel_blocks",)))
    saved = 7 / 8 * ours.parts_s["backward"] * 8
    assert locked.step_s - ours.step_s == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_hop_is_one_more_parallel_phase_whose_sums_travel_all_devices(devices):
    """Its input gradients are shared by all devices, and the chain of sends is all that grows with their number."""
    sizes = Gpt(depth=8, width=128, tokens=128, context=32, vocabulary=256)
    layout = StepLayout(devices=devices, vectors="batch")
    one, two = (step_cost(modelled(replace(sizes, hops=hops)), PLANNED_METHODS["dfa"], OPU, layout) for hops in (1, 2))
    computed = two.parts_s["backward"] - one.parts_s["backward"]
    sent = (devices - 1) * one.parts_s["handovers"]
    assert two.step_s - one.step_s == pytest.approx(computed + sent, rel=1e-9)
    assert two.parts_s["crossings"] == pytest.approx(2 * one.parts_s["handovers"])
    bp = [step_cost(modelled(replace(sizes, hops=hops)), PLANNED_METHODS["bp"], OPU, layout) for hops in (0, 2)]
    assert bp[0].step_s == pytest.approx(bp[1].step_s, rel=1e-9)


def test_microbatches_hide_the_shorter_of_light_and_compute():
    layout = StepLayout(vectors="token", microbatches=64)
    found = step_cost(big(), PLANNED_METHODS["odfa"], OPU, layout)
    apart = step_cost(big(), PLANNED_METHODS["odfa"], OPU, replace(layout, off=("overlap",)))
    computing = found.parts_s["forward"] + found.parts_s["backward"]
    assert apart.step_s - found.step_s == pytest.approx(computing, rel=0.1)
    assert found.step_s == pytest.approx(found.parts_s["light"], rel=0.1)


def test_what_does_not_fit_is_moved_and_no_more():
    walk = walks_of_gpt(Gpt(depth=4, width=128, tokens=128, context=32, vocabulary=256), "mixed")["bp", "keep"]
    needed = need(walk, PRECISIONS["mixed"])
    assert offload(needed, PRECISIONS["mixed"], needed.total, 4).link_bytes == 0
    one = offload(needed, PRECISIONS["mixed"], needed.total - 1200, 4)
    assert one.link_bytes == pytest.approx(1200 * 4 / 12), "states: gradient out, weight in, for twelve bytes of state"
    assert one.fits
    more = offload(needed, PRECISIONS["mixed"], needed.total - needed.states - 1000, 4)
    assert more.activations == pytest.approx(2 * 1000)
    assert not offload(needed, PRECISIONS["mixed"], 1000, 4).fits


@settings(max_examples=30, deadline=None)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_less_memory_never_means_less_traffic(a, b):
    walk = walks_of_gpt(Gpt(depth=4, width=128, tokens=128, context=32, vocabulary=256), "mixed")["bp", "keep"]
    needed = need(walk, PRECISIONS["mixed"])
    less, more = sorted((a * needed.total, b * needed.total))
    moved = [offload(needed, PRECISIONS["mixed"], capacity, 4).link_bytes for capacity in (less, more)]
    assert moved[0] >= moved[1] * (1 - 1e-12)


@pytest.mark.parametrize("switch", list(SWITCHES))
def test_a_switch_changes_what_it_names(switch):
    """Each on a case where its term matters; what it does not name stays."""
    layout = StepLayout(vectors="sequence", devices=4, microbatches=4)
    tight = replace(big(), processor=replace(big().processor, memory_bytes=2e9))
    name = "bp+offloading" if switch == "moved_activations" else "odfa+offloading"
    before = step_cost(tight, PLANNED_METHODS[name], OPU, layout)
    after = step_cost(tight, PLANNED_METHODS[name], OPU, replace(layout, off=(switch,)))
    assert after.step_s != before.step_s
    slower = switch in ("saved_backward", "fewer_vectors", "parallel_blocks", "overlap")
    assert (after.step_s > before.step_s) == slower


def test_offloading_streams_when_that_is_faster():
    roomy = step_cost(big(), PLANNED_METHODS["odfa+offloading"], OPU, StepLayout())
    deep = big(512, 2000)
    assert roomy.activations == "keep"
    assert step_cost(deep, PLANNED_METHODS["odfa+offloading"], OPU, StepLayout()).activations == "stream"


# refusals


@pytest.mark.parametrize(("name", "near"), [("a101", "a100"), ("h10", "h100")])
def test_an_unknown_processor_is_named_with_its_nearest(name, near):
    with pytest.raises(ConfigError, match=near):
        get_processor(name)


def test_an_unknown_opu_is_named_with_its_nearest():
    with pytest.raises(ConfigError, match="opu-2021"):
        get_opu("opu-2020")


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("field", ["matmul_flops_per_s", "bytes_per_s", "link_bytes_per_s", "memory_bytes", "power_w"])
def test_rates_that_are_not_positive_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        replace(get_processor("a100"), **{field: value})


@pytest.mark.parametrize("value", [0.0, -2000.0])
def test_an_opu_without_a_rate_is_refused(value):
    with pytest.raises(ConfigError, match="rate_hz"):
        replace(OPU, rate_hz=value)


def test_a_processor_that_idles_at_full_power_is_refused():
    with pytest.raises(ConfigError, match="nothing of power_w"):
        replace(get_processor("a100"), idle_w=400.0)


@pytest.mark.parametrize("field", ["depth", "width", "tokens", "context", "vocabulary"])
def test_sizes_of_zero_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        Gpt(**{"depth": 1, "width": 64, "tokens": 256, field: 0})


def test_layouts_are_checked():
    with pytest.raises(ConfigError, match="devices"):
        StepLayout(devices=0)
    with pytest.raises(ConfigError, match="saved_backward"):
        StepLayout(off=("backward",))
