"""Direct feedback alignment in one file: plain PyTorch, no options, no package.

A network learns from its output error e without ever sending it backwards through the layers: each hidden layer
receives B_l e, a fixed random projection of it. The stages carry the numbers and names of the package `odfa`:

    (1) error   (2)-(4) projection   (5) feedback   (6) local updates

Shapes: N samples · D error width (classes) · K width of one hidden layer. Run it: python minimal/dfa.py
Source: Nøkland, "Direct feedback alignment provides learning in deep neural networks", arXiv 1609.01596.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def init(widths: list[int], seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Weights W_l and biases of a tanh network with the given widths, input and output included."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(i, o, generator=generator) / i**0.5 for i, o in pairwise(widths)]
    return weights, [torch.zeros(o) for o in widths[1:]]


def feedback_matrices(widths: list[int], seed: int = 1) -> list[Tensor]:
    """One fixed random matrix B_l per hidden layer, (D, K_l), entries N(0, 1). Never learned."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(widths[-1], k, generator=generator) for k in widths[1:-1]]


def forward(x_ND: Tensor, weights: list[Tensor], biases: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Inputs of every layer, and the logits."""
    h = [x_ND]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        h.append(torch.tanh(h[-1] @ w + b))
    return h, h[-1] @ weights[-1] + biases[-1]


def step(
    x_ND: Tensor, y_N: Tensor, weights: list[Tensor], biases: list[Tensor], feedback: list[Tensor], lr: float
) -> float:
    """One step of gradient descent on the cross-entropy; changes weights and biases in place, returns the loss."""
    h, logits_ND = forward(x_ND, weights, biases)
    num_classes = logits_ND.shape[1]

    # (1) error: derivative of the mean cross-entropy with respect to the logits
    e_ND = (logits_ND.softmax(1) - one_hot(y_N, num_classes)) / len(x_ND)

    # (2)-(4) projection: the part that light can do, all layers from the same error; (5) feedback: keep |s| near |e|
    signals = [e_ND @ b_DK / b_DK.shape[1] ** 0.5 for b_DK in feedback]

    # (6) local updates: the head by its true gradient, each hidden layer by its own signal
    deltas = [s_NK * (1 - h_NK**2) for s_NK, h_NK in zip(signals, h[1:], strict=True)] + [e_ND]
    for w, b, h_in, delta in zip(weights, biases, h, deltas, strict=True):
        w -= lr * h_in.T @ delta
        b -= lr * delta.sum(0)

    return torch.nn.functional.cross_entropy(logits_ND, y_N).item()


def main() -> None:
    """Learn scikit-learn's handwritten digits; print accuracy beside training the head alone."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    x_ND, y_N = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x_ND = x_ND.float() / 16 - 0.3
    test = slice(1400, None)
    for name, use in (("direct feedback alignment", 1.0), ("head only (the control)", 0.0)):
        widths = [64, 128, 128, 10]
        weights, biases = init(widths)
        feedback = [use * b for b in feedback_matrices(widths)]
        for batch in torch.cat([torch.randperm(1400) for _ in range(20)]).split(100):
            loss = step(x_ND[batch], y_N[batch], weights, biases, feedback, lr=0.5)
        accuracy = (forward(x_ND[test], weights, biases)[1].argmax(1) == y_N[test]).float().mean()
        print(f"{name}: loss {loss:.3f}, test accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
