"""The one-file versions and the package are the same algorithm: twenty steps, equal parameters."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odfa.draws import Draws
from odfa.encode import Ternary
from odfa.engine import DFA
from odfa.opu import Twin
from odfa.opu.twin.medium import transmission
from odfa.project import Gaussian, Optical

WIDTHS, LR, STEPS = [12, 9, 7, 4], 0.3, 20
ROOT = Path(__file__).parents[2] / "minimal"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(STEPS, 16, WIDTHS[0]), torch.randint(0, WIDTHS[-1], (STEPS, 16))


def package_model(weights: list[Tensor], biases: list[Tensor]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for w, b in zip(weights, biases, strict=True):
        linear = nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(w.T)
            linear.bias.copy_(b)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def assert_same_after(
    model: nn.Sequential,
    x: Tensor,
    y: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    mirror: Callable[[int], float],
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    losses = []
    for t in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[t]), y[t])
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), mirror(t)))
    for ours, theirs in losses:
        assert ours == pytest.approx(theirs, rel=1e-4)
    for linear, w, b in zip(model[::2], weights, biases, strict=True):
        torch.testing.assert_close(linear.weight.detach(), w.T, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(linear.bias.detach(), b, rtol=1e-4, atol=1e-5)


def test_dfa_py_equals_the_package() -> None:
    minimal = load("dfa")
    x, y = data()
    weights, biases = minimal.init(WIDTHS)
    model = package_model(weights, biases)
    DFA(model, projection=Gaussian(seed=5))
    matrix = Gaussian(seed=5).shaped(4, 16).matrix()
    feedback = [matrix[:, :9], matrix[:, 9:]]
    assert_same_after(model, x, y, weights, biases, lambda t: minimal.step(x[t], y[t], weights, biases, feedback, LR))


def test_optical_dfa_py_equals_the_package_on_an_ideal_twin() -> None:
    minimal = load("optical_dfa")
    x, y = data()
    weights, biases = minimal.init(WIDTHS)
    model = package_model(weights, biases)
    DFA(model, projection=Optical(Twin.ideal(seed=5), encoder=Ternary(seed=2)))
    opu = minimal.make_opu(num_inputs=4, num_modes=8, bits=None)
    opu.medium_DM = torch.complex(*transmission(5, 4, 8)).to(torch.complex128)
    stream = int.from_bytes(b"ternary")

    def mirror(t: int) -> float:
        draws = Draws(stream, 2, t).uniform(16, 4)
        return minimal.step(x[t], y[t], weights, biases, opu, draws, LR)

    weights[:] = [w.clone() for w in weights]
    assert_same_after(model, x, y, weights, biases, mirror)
    assert opu.frames == STEPS * 16 * 2 * 4


@pytest.mark.parametrize(("name", "most_lines"), [("dfa", 150), ("optical_dfa", 250)])
def test_minimal_files_stay_minimal_and_stand_alone(name: str, most_lines: int) -> None:
    text = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= most_lines
    assert "import odfa" not in text
    assert "from odfa" not in text


@pytest.mark.parametrize("name", ["dfa", "optical_dfa"])
def test_minimal_files_learn(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    load(name).main()
    printed = capsys.readouterr().out
    accuracy = float(printed.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 88.0
    if name == "dfa":
        control = float(printed.split("test accuracy ")[2].split("%")[0])
        assert accuracy > control + 1.0
