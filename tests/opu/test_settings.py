"""OPUs as settings: twins by name, OPUs of other packages with and without settings of their own."""

from dataclasses import dataclass, field

import pytest
import torch

from odfa.demodulate import DemodulatorSettings
from odfa.encode import EncoderSettings
from odfa.errors import ConfigError
from odfa.opu import NamedOpu, OpuSettings, Sensor, Twin, TwinSettings, open_opu
from odfa.opu.template import MyOPU
from odfa.settings import Settings, apply, from_dict, kinds_of, to_dict


@dataclass(frozen=True, kw_only=True)
class Bench(OpuSettings):
    """An instrument with a setting."""

    gain: float = 1.0
    """Of the camera."""

    def build(self, noise_seed: int = 0) -> MyOPU:
        opu = MyOPU()
        opu.opu_id = f"bench {self.gain:g}"
        return opu


@dataclass(frozen=True, kw_only=True)
class Root(Settings):
    """Where an OPU stands."""

    opu: OpuSettings = field(default_factory=TwinSettings)
    """It."""


HERE = __name__


def test_twins_are_named_and_every_setting_of_them_is_reached():
    assert apply(Root(), ["opu=opu-2021"]).opu.build(4).opu_id == Twin.preset("opu-2021").opu_id
    ideal = apply(Root(), ["opu=ideal", "opu.seed=3"]).opu
    assert ideal.build().opu_id == Twin.ideal(3).opu_id
    small = apply(Root(), ["sensor.bits=4", "shape_cam=40,64", "carrier_cpp=0.2,0.3", "drift.gain_jitter=0.1"]).opu
    assert small == TwinSettings(
        sensor=Sensor(bits=4), shape_cam=(40, 64), reference=small.reference, drift=small.drift
    )
    assert (small.build().full_scale, small.build().shape_cam, small.build().carrier_cpp) == (15, (40, 64), (0.2, 0.3))


def test_an_opu_with_settings_of_another_module_is_one_like_ours():
    chosen = apply(Root(), [f"opu={HERE}:Bench", "opu.gain=2"])
    assert chosen.opu.build().opu_id == "bench 2"
    assert from_dict(to_dict(chosen), Root) == chosen
    assert open_opu(f"{HERE}:Bench", gain=3.0).opu_id == "bench 3"
    with pytest.raises(ConfigError, match=r"does not take these settings: .*colour"):
        open_opu(f"{HERE}:Bench", colour="red")


@pytest.mark.parametrize("name", ["odfa.opu.template:MyOPU", f"{HERE}:MyOPU"])
def test_an_opu_without_settings_is_named(name):
    chosen = apply(Root(), [f"opu={name}"])
    assert chosen.opu == NamedOpu(name=name)
    assert to_dict(chosen) == {"opu": {"type": "named", "name": name}}
    assert from_dict(to_dict(chosen), Root) == chosen
    assert chosen.opu.build().opu_id == MyOPU.opu_id


def test_a_registered_opu_stands_for_its_settings(package):
    source = """
from tests.opu.test_settings import Bench
from odfa.opu.template import MyOPU

def made():
    return MyOPU()
"""
    package({"with": "my_lab:Bench", "without": "my_lab:made"}, source)
    assert apply(Root(), ["opu=with", "opu.gain=4"]).opu.build().opu_id == "bench 4"
    assert apply(Root(), ["opu=without"]).opu == NamedOpu(name="without")
    assert open_opu("with", gain=5.0).opu_id == "bench 5"
    assert open_opu("without").opu_id == MyOPU.opu_id
    assert apply(Root(), ["opu=without"]).opu.build().opu_id == MyOPU.opu_id


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("opu=nothing", "opu: expected"),
        ("opu=named", "opu.name: expected a text"),
        ("opu=json:x", "opu: 'json:x' cannot be imported"),
    ],
)
def test_what_is_no_opu_is_refused_by_its_key(word, told):
    with pytest.raises(ConfigError, match=told):
        apply(Root(), [word])


def test_the_twin_from_settings_is_the_twin():
    bits_FD = torch.ones(2, 6, dtype=torch.bool)
    ours = TwinSettings(seed=2, shape_cam=(8, 8)).build(7)
    theirs = Twin(2, noise_seed=7, shape_cam=(8, 8))
    counts = [opu._run_hw(bits_FD, phase_S=(), arm="blocked", roi=(8, 8)) for opu in (ours, theirs)]
    assert torch.equal(*counts)


def test_the_kinds_of_the_stages():
    assert set(kinds_of(OpuSettings)) == {"named", "twin"}
    assert set(kinds_of(DemodulatorSettings)) == {"anchor", "offaxis", "phase"}
    assert set(kinds_of(EncoderSettings)) == {
        "best_cosine",
        "bits",
        "relative_max",
        "sampled",
        "sign",
        "spread",
        "stochastic",
        "trits",
    }
