"""A fault campaign: an instrument that misbehaves in the middle of training is lived with or named, never trusted.

The network learns digits through the simulated bench of tests/opu/rig.py. Each fault strikes at a random frame with
a random strength. Afterwards a run is one of

- absorbed: it reached the end, its accuracy is that of sound runs, and the feedback was right but for what was
  projected between two looks at the witnesses;
- named: it ended with an error of `odfa.errors`;
- silent: anything else. There must be none.

    python -m pytest tests/train/test_faults.py -m slow -s     # 12 kinds, 20 draws each, and the table
"""

import warnings
from collections import Counter
from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from tests.opu.rig import Fault, rig
from torch import nn
from torch.nn.functional import cross_entropy

from odfa import DFA, Guard, Optical, Ternary
from odfa.errors import OpuError
from odfa.keys import numpy_generator
from odfa.project import DriftWarning

STEPS, BATCH, EVERY, CLASSES, WIDTH = 50, 50, 200, 10, 64
FRAMES = 205 + STEPS * (BATCH * 8 + 4 * 15)  # self-test, then four chunks a step with their sync frames
LASTING = ("shifted frames", "saturation", "dark laser", "stuck mirrors", "gain jump", "phase jump", "slow drift")
KINDS = ("lost frames", "late frames", "duplicated frames", *LASTING, "decorrelation", "disconnect")
SIZES = {
    "saturation": (3.0, 30.0),
    "stuck mirrors": (0.1, 0.7),
    "gain jump": (0.3, 2.0),
    "phase jump": (0.3, 3.1),
    "slow drift": (0.1, 3.0),
}


@dataclass
class Outcome:
    """What became of one run."""

    error: str | None
    accuracy: float
    agreement: list[float]
    """Correlation of each step's feedback with the exact projection of its error."""


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    x_ND, y_N = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    return x_ND.float() / 8 - 1, y_N


def fault_of(kind: str, draw: int) -> Fault:
    generator = numpy_generator(KINDS.index(kind), draw)
    low, high = SIZES.get(kind, (1.0, 1.0))
    size = float(generator.uniform(low, high)) * (-1 if kind == "phase jump" and generator.random() < 0.5 else 1)
    times = None if kind in LASTING else [1, 2, 3, None][int(generator.integers(4))]
    return Fault(kind=kind, start=int(generator.integers(600, int(0.7 * FRAMES))), size=size, times=times)


def train(digits, *faults: Fault, seed: int = 0) -> Outcome:
    """Fifty steps through the bench; whatever the OPU raises ends the run."""
    torch.manual_seed(seed)
    x_ND, y_N = digits
    blocks = [nn.Sequential(nn.Linear(width, WIDTH), nn.Tanh()) for width in (64, WIDTH)]
    model = nn.Sequential(*blocks, nn.Linear(WIDTH, CLASSES))
    bench, world = rig(CLASSES, *faults)
    matrix_DM = (2**0.5 * torch.view_as_real(world.twin.transmission(CLASSES, WIDTH)).flatten(1)).float()
    dfa = DFA(model, blocks=blocks, projection=Optical(bench, encoder=Ternary(seed=seed), guard=Guard(every=EVERY)))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    order_N = torch.randperm(1400)
    agreement: list[float] = []

    def spied(projection: Optical, e_ND: torch.Tensor) -> torch.Tensor:
        p_NM = project(projection, e_ND)
        agreement.append(torch.cosine_similarity(p_NM.flatten(), (e_ND @ matrix_DM).flatten(), dim=0).item())
        return p_NM

    project = Optical._project
    with patch.object(Optical, "_project", spied):
        try:
            for step in range(STEPS):
                index_N = order_N[torch.arange(step * BATCH, (step + 1) * BATCH) % 1400]
                loss = cross_entropy(model(x_ND[index_N]), y_N[index_N])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        except OpuError as error:
            return Outcome(type(error).__name__, 0.0, agreement)
        assert dfa.last is not None
    accuracy = (model(x_ND[1400:]).argmax(1) == y_N[1400:]).float().mean().item()
    return Outcome(None, accuracy, agreement)


@pytest.fixture(scope="module")
def sound(digits):
    """Accuracy and agreement of runs without faults: the worst of five seeds."""
    runs = [train(digits, seed=seed) for seed in range(5)]
    assert all(run.error is None for run in runs)
    return min(run.accuracy for run in runs), min(min(run.agreement) for run in runs)


def verdict(run: Outcome, sound: tuple[float, float]) -> str:
    if run.error is not None:
        return run.error
    wrong = sum(agreement < 0.6 * sound[1] for agreement in run.agreement)
    unseen = EVERY // BATCH + 1
    if run.accuracy < sound[0] - 0.03 or wrong > unseen:
        return "SILENT"
    return "absorbed"


def campaign(digits, sound, draws: range) -> dict[str, Counter]:
    table: dict[str, Counter] = {}
    for kind in KINDS:
        table[kind] = Counter()
        for draw in draws:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DriftWarning)
                table[kind][verdict(train(digits, fault_of(kind, draw), seed=draw), sound)] += 1
    return table


def test_every_kind_of_fault_is_absorbed_or_named(digits, sound):
    table = campaign(digits, sound, range(2))
    assert not any("SILENT" in outcomes for outcomes in table.values()), table


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_campaign(digits, sound):
    table = campaign(digits, sound, range(20))
    columns = sorted({outcome for outcomes in table.values() for outcome in outcomes})
    print(f"\nsound runs: accuracy {sound[0]:.3f}, agreement {sound[1]:.3f}")
    print("".join(f"{name:>20}" for name in ("fault", *columns)))
    for kind, outcomes in table.items():
        print("".join(f"{cell:>20}" for cell in (kind, *(outcomes[column] for column in columns))))
    assert sum(map(Counter.total, table.values())) == 12 * 20
    assert not any("SILENT" in outcomes for outcomes in table.values())
