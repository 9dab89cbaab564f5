"""Optical direct feedback alignment in one file: the projection of `dfa.py`, done by (simulated) light.

    (1) error → (2) encode: ternary, two mirror patterns → (3) opu: mirrors, scattering medium, reference, camera
    → (4) demodulate: four phase steps → (5) feedback → (6) local updates

Replace `camera_counts` by a real mirror array and camera and nothing else changes. Shapes: N samples · D error width ·
F patterns (plus, minus) · S reference phases · M optical modes · K width of one hidden layer.
Run it: python minimal/optical_dfa.py
Sources: optical DFA, arXiv 2409.12965; ternary errors on a binary mirror array, arXiv 2006.01475.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import one_hot

PHASES = (0.0, math.pi / 2, math.pi, 3 * math.pi / 2)
FRAME_RATE_HZ, POWER_W = 2000.0, 30.0


@dataclass
class Opu:
    """The optical bench: a scattering medium A, entries CN(0, 1), a reference wave, a camera."""

    medium_DM: Tensor
    reference: float
    e_per_intensity: float
    full_well_e: float = 13_500.0
    read_noise_e: float = 13.0
    bits: int | None = 8
    """None: no noise and no rounding, the ideal camera."""
    frames: int = 0

    @property
    def counts_per_e(self) -> float:
        """Counts per electron: the full well fills the scale."""
        return 1.0 if self.bits is None else (2**self.bits - 1) / self.full_well_e

    @property
    def counts_per_field(self) -> float:
        """Interference counts per unit of field."""
        return self.reference * self.e_per_intensity * self.counts_per_e


def make_opu(num_inputs: int, num_modes: int, seed: int = 1, bits: int | None = 8) -> Opu:
    """A bench whose reference is 16 times as bright as the signal at 30 % lit mirrors, exposed to 30 % of full well."""
    generator = torch.Generator().manual_seed(seed)
    quadratures = torch.randn(2, num_inputs, num_modes, generator=generator) * 0.5**0.5
    signal = 0.3 * num_inputs
    return Opu(
        medium_DM=torch.complex(quadratures[0], quadratures[1]),
        reference=math.sqrt(16 * signal),
        e_per_intensity=0.3 * 13_500 / (17 * signal),
        bits=bits,
    )


def encode(e_ND: Tensor, random_ND: Tensor) -> tuple[Tensor, Tensor]:
    """(2) Ternary error as two binary patterns: keep entry i with probability |e_i| / max|e|, so that the mean is e.

    Each sample by itself: a threshold on the batch's mean error would switch every mirror off.
    """
    scale_N1 = e_ND.abs().amax(1, keepdim=True)
    level_ND = random_ND * scale_N1
    bits_NFD = torch.stack([level_ND < e_ND, -level_ND > e_ND], dim=1)  # plus pattern, minus pattern
    return bits_NFD, torch.cat([scale_N1, -scale_N1], dim=1)


def camera_counts(opu: Opu, bits_NFD: Tensor) -> Tensor:
    """(3) Show every pattern at every reference phase: |A x + r e^(i theta)|^2 → photo-electrons → counts_NFSM."""
    field_NFM = bits_NFD.to(opu.medium_DM.dtype) @ opu.medium_DM
    reference_S1 = (
        opu.reference * torch.exp(1j * torch.tensor(PHASES, dtype=torch.float64)).to(field_NFM.dtype)[:, None]
    )
    electrons = (field_NFM[:, :, None] + reference_S1).abs().square() * opu.e_per_intensity
    opu.frames += bits_NFD.shape[0] * bits_NFD.shape[1] * len(PHASES)
    if opu.bits is None:
        return electrons
    electrons = torch.poisson(electrons) + opu.read_noise_e * torch.randn_like(electrons)
    return (electrons * opu.counts_per_e).round().clamp(0, 2**opu.bits - 1)


def demodulate(opu: Opu, counts_NFSM: Tensor, gain_NF: Tensor) -> Tensor:
    """(4) Phase stepping: z = (I_0 - I_2) / 4 + i (I_1 - I_3) / 4 is the field; plus less minus has no static bias."""
    i_0, i_1, i_2, i_3 = counts_NFSM.unbind(2)
    field_NFM = torch.complex(i_0 - i_2, i_1 - i_3) / 4 / opu.counts_per_field
    return (gain_NF[:, :, None] * field_NFM).sum(1)


def project(opu: Opu, e_ND: Tensor, random_ND: Tensor) -> Tensor:
    """(2)-(4) p_N(2M): both quadratures of every mode, scaled so that the matrix has entries N(0, 1)."""
    bits_NFD, gain_NF = encode(e_ND, random_ND)
    field_NM = demodulate(opu, camera_counts(opu, bits_NFD), gain_NF)
    return 2**0.5 * torch.view_as_real(field_NM).flatten(1).to(e_ND.dtype)


def init(widths: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of a tanh network, as in `dfa.py`."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(i, o, generator=generator) / i**0.5 for i, o in pairwise(widths)]
    return weights, [torch.zeros(o) for o in widths[1:]]


def forward(x_ND: Tensor, weights: list[Tensor], biases: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Inputs of every layer, and the logits, as in `dfa.py`."""
    h = [x_ND]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h.append(torch.tanh(h[-1] @ w + b))
    return h, h[-1] @ weights[-1] + biases[-1]


def step(
    x_ND: Tensor, y_N: Tensor, weights: list[Tensor], biases: list[Tensor], opu: Opu, random_ND: Tensor, lr: float
) -> float:
    """One step of gradient descent; changes weights and biases in place, returns the loss."""
    h, logits_ND = forward(x_ND, weights, biases)
    e_ND = (logits_ND.softmax(1) - one_hot(y_N, logits_ND.shape[1])) / len(x_ND)  # (1) error

    hidden = [w.shape[1] for w in weights[:-1]]
    p_NM = project(opu, e_ND, random_ND)  # (2)-(4) one optical projection serves all layers
    slices = p_NM[:, : sum(hidden)].split(hidden, dim=1)
    signals = [p_NK / k**0.5 for p_NK, k in zip(slices, hidden, strict=True)]  # (5) feedback

    deltas = [s_NK * (1 - h_NK**2) for s_NK, h_NK in zip(signals, h[1:], strict=True)] + [e_ND]
    for w, b, h_in, delta in zip(weights, biases, h, deltas, strict=True):  # (6) local updates
        w -= lr * h_in.T @ delta
        b -= lr * delta.sum(0)
    return torch.nn.functional.cross_entropy(logits_ND, y_N).item()


def main() -> None:
    """Learn scikit-learn's handwritten digits through noisy simulated light; print what the light would cost."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x_ND, y_N = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x_ND = x_ND.float() / 16 - 0.3
    test = slice(1400, None)
    widths = [64, 128, 128, 10]
    weights, biases = init(widths)
    opu = make_opu(num_inputs=10, num_modes=128)
    for batch in torch.cat([torch.randperm(1400) for _ in range(20)]).split(100):
        loss = step(x_ND[batch], y_N[batch], weights, biases, opu, torch.rand(100, 10), lr=0.5)
    accuracy = (forward(x_ND[test], weights, biases)[1].argmax(1) == y_N[test]).float().mean()
    seconds = opu.frames / FRAME_RATE_HZ
    print(f"optical direct feedback alignment: loss {loss:.3f}, test accuracy {accuracy:.1%}")
    print(f"light: {opu.frames:,} frames, {seconds:,.0f} s at 2 kHz, {seconds * POWER_W:,.0f} J at 30 W")


if __name__ == "__main__":
    main()
