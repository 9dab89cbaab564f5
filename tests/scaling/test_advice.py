"""Advice of a plan: its words, in the command, give what was promised."""

import json
import re

import pytest

from odfa.cli import main
from odfa.scaling import PlanSettings, make_plan
from odfa.settings import apply

PLANS = {
    "wide vectors": ("gpt2", ()),
    "off-axis": ("gpt2", ("opu.demodulator=phase", "vectors=sequence")),
    "a full link": ("gpt3-13b", ("tokens=4096",)),
    "little memory": ("gpt2", ("processor.memory_bytes=2e9", "vectors=sequence", "opus=8", "microbatches=8")),
    "devices": ("digits", ("devices=1", "opu.rate_hz=50000", "opu.exposure_s=1e-6", "opu.row_s=none")),
    "no slower mirrors": ("digits_tiny", ("opu.rate_hz=1e6", "vectors=batch")),
}
KINDS = (
    "one error vector per sequence", "off-axis holography", "OPUs (", "an OPU twice as fast", "eight microbatches",
    "devices (", "a link of twice the rate", "a processor of twice the memory",
)  # fmt: skip


def _step(page: dict) -> float:
    rows = [row for row in page["methods"] if row["method"] in ("odfa", "odfa+offloading")]
    return min(rows, key=lambda row: (not row["fits"], row["step_s"]))["step_s"]


def _instead(words: tuple[str, ...], advised: list[str]) -> list[str]:
    """The words of a command with the advised ones in place of those of the same key."""
    return list({word.partition("=")[0]: word for word in (*words, *advised)}.values())


def _followed(model: str, words: tuple[str, ...]) -> set[str]:
    """Every advice of the page followed: the kinds that it gave."""
    given = set()
    config = apply(PlanSettings(), words)
    page = make_plan(model, config)
    for row in page["change_first"]:
        assert all(word in row["change"] for word in row["settings"])
        then = make_plan(model, apply(PlanSettings(), _instead(words, row["settings"])))
        assert _step(then) == row["step_s"]
        assert _step(page) / _step(then) == row["times_as_fast"] > 1.02
        given.add(next(kind for kind in KINDS if kind in row["change"]))
    return given


def test_every_advice_works_when_it_is_followed() -> None:
    given = {kind for model, words in PLANS.values() for kind in _followed(model, words)}
    assert given == set(KINDS)


def test_the_words_of_the_page_are_the_words_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits_tiny"]) == 0
    said = " ".join(capsys.readouterr().out.partition("What would bring odfa most:")[2].split())
    found = re.findall(r"[\d.]+ x as fast: [^(]*\(([^;)]*)", said)
    assert "opus=2" in found
    for words in found:
        assert main(["plan", "digits_tiny", *words.split()]) == 0


def test_what_is_said_where_nothing_fits_makes_it_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "gpt2", "processor.memory_bytes=1e6"]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    (enough,) = re.findall(r"Nothing fits\. \S+ needs least: (processor\.memory_bytes=\d+);", said)
    assert main([*words[:2], enough, "--json"]) == 0
    assert any(row["fits"] for row in json.loads(capsys.readouterr().out)["methods"])


def test_more_than_a_plan_takes_is_not_advised() -> None:
    page = make_plan("digits_tiny", apply(PlanSettings(), ["opus=1000000000"]))
    assert not any("OPUs" in row["change"] for row in page["change_first"])


def test_the_context_that_is_advised_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt2", "context=2048"]) == 2
    (word,) = re.findall(r"(context=\d+) fits", capsys.readouterr().err)
    assert main(["plan", "gpt2", word]) == 0
