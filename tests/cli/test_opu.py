"""`odfa opu`."""

import re
import sys

import pytest

from odfa.opu import AbstractOpu, Calibration, Drift, Twin
from odfa.opu.template import MyOPU


def test_list_names_the_twins(odfa):
    assert {"twin", "opu-2021", "ideal"} <= {entry["name"] for entry in odfa("opu", "list", "--json").json["opus"]}
    assert "digital twin of the 2021 instrument" in odfa("opu", "list").out


@pytest.mark.parametrize("demodulator", ["phase", "phase3", "offaxis", "anchor"])
def test_check_passes_for_the_twin(odfa, demodulator):
    said = odfa("opu", "check", "opu-2021", f"demodulator={demodulator}", "inputs=50", "modes=30", "--json")
    assert said.code == 0
    assert said.json["passed"] is True
    assert all({"name", "passed", "value", "expected"} <= entry.keys() for entry in said.json["checks"])
    assert "(3, 30) finite" in str(said.json)


def test_check_ends_with_pass_or_with_reasons(odfa, monkeypatch):
    assert odfa("opu", "check", "opu-2021").out.rstrip().endswith("pass")

    def shaky() -> AbstractOpu:
        return Twin(drift=Drift(phase_drift_rad_per_s=50.0))

    monkeypatch.setattr(sys.modules[__name__], "shaky", shaky, raising=False)
    said = odfa("opu", "check", f"{__name__}:shaky")
    assert said.code == 1
    assert said.out.rstrip().endswith("fail")
    assert "repeatability: the same patterns give other fields" in said.out
    assert odfa("opu", "check", f"{__name__}:shaky", "--json").json["passed"] is False


class Faulty(MyOPU):
    """The template with other claims; without any it does not open."""

    def __init__(self, **stated):
        self.stated = stated
        for name, value in stated.items():
            setattr(self, name, value)

    def _open_hw(self):
        if not self.stated:
            raise OSError("no such device: /dev/video0")
        super()._open_hw()


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "opening: Disconnected: my-opu: OSError: no such device: /dev/video0"),
        ({"shape_dmd": (100,)}, "abilities: not stated, or not sensible: shape_dmd: expected (rows, columns)"),
        ({"opu_id": None}, "abilities: not stated, or not sensible: opu_id: expected a text"),
    ],
)
def test_check_finds_hardware_that_does_not_open_and_nonsense(odfa, monkeypatch, stated, words):

    def faulty() -> AbstractOpu:
        return Faulty(**stated)

    monkeypatch.setattr(sys.modules[__name__], "faulty", faulty, raising=False)
    name = f"{__name__}:faulty"
    said = odfa("opu", "check", name)
    assert (said.code, said.err) == (1, f"checking {name} …\n")
    assert words in said.out
    for action in ("calibrate", "show"):
        said = odfa("opu", action, name)
        assert said.code == 1
        assert words.split(": ", 2)[-1].removeprefix("abilities: ") in said.complaint


def test_every_setting_of_a_twin_is_reached(odfa):
    words = ("inputs=20", "modes=16", "demodulator=offaxis", "flat_field=true", "--json")
    bright = odfa("opu", "check", "twin", "sensor.bits=4", "opu.seed=3", *words)
    assert bright.json["opu_id"].startswith("twin(custom, seed=3")
    assert bright.json["demodulator"] == "off_axis(flat_field)"
    assert "counts in 0 … 15" in str(bright.json)


def test_calibrate_writes_a_record_that_loads(odfa, tmp_path):
    said = odfa("opu", "calibrate", "opu-2021", "inputs=20", "modes=32", "matrix=hadamard", "out=cal", "--json")
    found = Calibration.load(tmp_path / "cal")
    assert (said.code, said.json["id"]) == (0, found.id)
    assert found.matrix_DM.shape == (20, 32)
    again = odfa("opu", "calibrate", "opu-2021", "out=cal")
    assert again.code == 2
    assert "exists already" in again.complaint


def test_show_writes_pictures(odfa, tmp_path):
    said = odfa("opu", "show", "twin", "out=pictures", "--json")
    names = ["fourier.png", "hologram.png", "intensity.png", "singular-values.png", "speckle.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == names
    assert len(said.json["figures"]) == 5
    assert all((tmp_path / path).read_bytes().startswith(b"\x89PNG") for path in said.json["figures"])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("check",), "expects the name of an OPU"),
        (("check", "demodulator=phase"), "expects the name of an OPU"),
        (("check", "nope"), "unknown OPU 'nope'"),
        (("check", "twin", "demodulator=eyes"), "demodulator: expected anchor or offaxis or phase or phase3"),
        (("check", "twin", "colour=red"), "unknown setting 'colour'"),
        (("check", "twin", "modes=0"), "modes: expected a positive number"),
        (("calibrate", "twin", "matrix=guess"), "matrix: expected hadamard or one_hot"),
        (("check", "twin", "sensor.bits=40"), "opu.sensor.bits: expected an integer of between 1 and 16"),
        (("list", "twin"), "unknown argument 'twin'; see odfa opu list --help"),
        (("dance", "twin"), "invalid choice"),
        (("check", "ideal", "inputs=2000000"), "mirrors"),
    ],
)
def test_words_that_are_off_are_refused_in_one_line(odfa, words, hint):
    said = odfa("opu", *words)
    if words[-1].startswith("inputs"):
        assert said.code == 1  # the suite says so itself
        assert hint in said.out
    else:
        assert said.code == 2
        assert hint in said.complaint


def test_a_run_with_a_calibration_that_is_not_there_is_refused(odfa):
    said = odfa("train", "digits_tiny", "arm=odfa", "calibration=nowhere")
    assert said.code == 2
    assert re.search(r"there is no calibration in \S*nowhere; make one", said.complaint)
