"""Inputs that nobody wrote: whatever is read, nothing may crash, hang, touch what it should not, or lie by NaN.

python -m pytest tests/fuzz -s                 500 inputs, and the table
python -m pytest tests/fuzz -s -m slow         10,000 in processes of their own
python -m tests.fuzz.campaign replay TARGET INPUT
"""

import pytest
import torch

from tests.fuzz.base import Room
from tests.fuzz.campaign import Tally, explore, in_children, shares
from tests.fuzz.stock import Stock
from tests.fuzz.targets import TARGETS

QUICK, MANY = 500, 10_000
KEY = 19


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """One room for all targets, and one thread, as in a process of its own."""
    root = tmp_path_factory.mktemp("fuzz")
    return Room(root / "room", Stock(root / "stock"))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_a_few_does_harm(name: str, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tally = explore(TARGETS[name], room, count=shares(QUICK)[name], key=KEY)
    finally:
        torch.set_num_threads(threads)
    _check(tally, shares(QUICK)[name])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_many_does_harm(name: str) -> None:
    _check(in_children(name, count=shares(MANY)[name], key=KEY), shares(MANY)[name])


def _check(tally: Tally, count: int) -> None:
    print(tally)
    assert tally.tried == count
    first = {(fault.kind, fault.what): fault for fault in reversed(tally.faults)}
    assert not first, "\n".join(
        f"{kind}: {what}\n  python -m tests.fuzz.campaign replay {fault.target} {fault.value!r}\n{fault.detail}"
        for (kind, what), fault in first.items()
    )
