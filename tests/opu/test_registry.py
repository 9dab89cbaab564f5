"""OPUs by name, from this package and from others."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import odfa.opu.template
from odfa.errors import ConfigError, Disconnected
from odfa.opu import Twin, list_opus, open_opu
from odfa.project.conformance import check


def test_twins_are_there_by_name():
    assert [entry.name for entry in list_opus()[:3]] == ["twin", "opu-2021", "ideal"]
    assert open_opu("twin", seed=3).opu_id == Twin(3).opu_id
    assert open_opu("opu-2021", seed=3).opu_id == Twin.preset("opu-2021", seed=3).opu_id
    assert open_opu("ideal").opu_id == Twin.ideal().opu_id


def test_an_opu_of_another_package_is_found_opened_and_conforms(package):
    package({"my-opu": "my_lab:MyOPU"}, Path(odfa.opu.template.__file__).read_text(encoding="utf-8"))
    entry = next(entry for entry in list_opus() if entry.name == "my-opu")
    assert (entry.source, entry.problem) == ("my-lab: my_lab:MyOPU", None)
    assert check(open_opu("my-opu")).passed


def test_a_package_that_does_not_load_says_why_and_spoils_nothing(package):
    package({"broken": "my_lab:MyOPU", "good": "my_lab2:X"}, "raise OSError('no vendor library')\n")
    problems = {entry.name: entry.problem for entry in list_opus()}
    assert problems["twin"] is None
    assert "OSError: no vendor library" in problems["broken"]
    with pytest.raises(ConfigError, match="broken does not load: OSError: no vendor library"):
        open_opu("broken")


def test_what_is_no_opu_is_refused(package):
    package(
        {"text": "my_lab:make", "fails": "my_lab:fail"}, "def make(): return 'x'\ndef fail(): raise OSError('off')\n"
    )
    with pytest.raises(ConfigError, match=r"expected an odfa.AbstractOpu, got str"):
        open_opu("text")
    with pytest.raises(Disconnected, match="OSError: off"):
        open_opu("fails")
    with pytest.raises(ConfigError, match="does not take these settings"):
        open_opu("twin", colour="red")


def test_a_name_from_a_run_folder_is_called_only_if_it_says_that_it_makes_an_opu(package):
    package(
        {},
        "from odfa import AbstractOpu, Twin\nran = []\n"
        "def told() -> AbstractOpu: return Twin(3)\ndef untold(): ran.append(1)\ndef other() -> 'gone': ran.append(1)\n"
        "class Loud:\n    def __init__(self): ran.append(1)\n",
    )
    assert open_opu("my_lab:told").opu_id == Twin(3).opu_id
    for name in ("my_lab:untold", "my_lab:other", "my_lab:Loud", "os:abort", "my_lab:ran"):
        with pytest.raises(ConfigError, match=r"annotated to return one \(def .*\(…\) -> AbstractOpu\), got"):
            open_opu(name)
    assert sys.modules["my_lab"].ran == []


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown OPU 'my-opu'; known: twin, opu-2021, ideal"):
        open_opu("my-opu")
    with pytest.raises(ConfigError, match=r"did you mean opu-2021"):
        open_opu("opu-2020")


def test_an_installed_package_registers_its_opu(tmp_path):
    wheel, info = tmp_path / "my_lab-1.0-py3-none-any.whl", "my_lab-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(odfa.opu.template.__file__, "my_lab.py")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[odfa.opus]\nmy-opu = my_lab:MyOPU\n")
        archive.writestr(f"{info}/RECORD", "")
    site = str(tmp_path / "site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, str(wheel)], check=True, timeout=120)
    code = f"import sys; sys.path.insert(0, {site!r}); import odfa.cli; odfa.cli.main(['opu', 'check', 'my-opu'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().endswith("pass")
