"""What a person reads: tables that keep words whole, numbers with units, a line where there is no terminal."""

import io
import logging
import re

import pytest

from odfa.cli.quantities import label, quantity
from odfa.data import needs
from odfa.lab import table
from odfa.train import monitor
from odfa.train.monitor import ProgressBar

WORDS = "bp+checkpointing+offloading reads_138,621_modes with/a/path/of/many/parts one two three"


@pytest.mark.parametrize("columns", [40, 80, 160])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_no_word_is_broken(monkeypatch, capsys, columns, count):
    monkeypatch.setattr(table, "width", lambda: columns)
    names = [f"column_{number}" for number in range(count)]
    table.print_table(names, [[WORDS] * count] * 2, title=f"A title of words. {WORDS}")
    out = capsys.readouterr().out
    assert {*out.split()} - {"─" * len(bar) for bar in re.findall("─+", out)} <= {
        *WORDS.split(), "A", "title", "of", "words.", *names, *(f"{name}:" for name in names)
    }  # fmt: skip
    assert max(map(len, out.splitlines())) <= columns


def test_lines_break_between_words_and_keep_paragraphs(monkeypatch):
    monkeypatch.setattr(table, "width", lambda: 20)
    assert table.lines_of("one two-three four five\n\nsix", indent=2) == ["one two-three four", "  five", "", "six"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("matmul_flops_per_s", 1.5e17, "1.5e17 operations a second"),
        ("link_bytes_per_s", 2.5e10, "2.5e10 bytes a second"),
        ("call_s", 2.5e-6, "2.5e-6 s"),
        ("created_s", 0.0, "1970-01-01 00:00 UTC"),
        ("created_s", 1_795_749_373.8, "2026-11-27 03:16 UTC"),
        ("peak_memory_bytes", 2**20 * 1.5, "1.5 MiB"),
        ("memory_bytes", 2**31, "2.0 GiB"),
        ("parameters", 8970, "8,970"),
        ("joules", 10.92, "10.92"),
        ("carrier_cpp", None, "none"),
        ("paired", True, "yes"),
        ("roi", (1, 8), "1, 8"),
        ("ops_peak", 5.588e14, "5.59e14 operations"),
    ],
)
def test_numbers_have_units(name, value, text):
    assert quantity(name, value) == text


def test_labels_leave_the_unit_to_the_number():
    assert [label(name) for name in ("matmul_flops_per_s", "created_s", "seconds", "ops_peak")] == [
        "matmul", "created", "seconds", "ops peak"
    ]  # fmt: skip


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch, capsys):
    now_s = iter([0.0, *(30.0 * step for step in range(1, 7))])
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: next(now_s))
    with ProgressBar(title="digits dfa", total_steps=12, step=0, shown=True) as bar:
        for step in range(1, 7):
            bar.update(step, loss=2.0, light_s=0.0)
    assert capsys.readouterr().err.splitlines() == [
        "digits dfa: step 2 of 12, loss 2.0000, 0.0333 steps/s, 0:05:00 left",
        "digits dfa: step 4 of 12, loss 2.0000, 0.0333 steps/s, 0:04:00 left",
        "digits dfa: step 6 of 12, loss 2.0000, 0.0333 steps/s, 0:03:00 left",
    ]


def test_a_bar_that_has_seen_no_step_shows_no_loss(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressBar(title="digits dfa", total_steps=3, step=0, shown=True) as bar:
        bar._bar.refresh()
        assert "0/3" in screen.getvalue()
        assert "loss" not in screen.getvalue()
        bar.update(1, loss=2.25, light_s=0.0)
        bar._bar.refresh()
    assert "loss 2.2500" in screen.getvalue()
    assert "nan" not in screen.getvalue()


def test_packages_keep_quiet_while_they_are_imported(caplog):
    with needs("torchao", "bfloat16 weights"):
        logging.getLogger("torchao").warning("Failed to load _C.so")
    logging.getLogger("torchao").warning("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]
