"""Fashion-MNIST by optical random features and a linear read-out: `python benchmarks/optical_features.py`.

The intensities of 100,000 camera pixels for 60,000 images take 24 GB as float32, so the read-out is fitted on as many
training images as fit into memory; `--images` says how many.
"""

import argparse
import time

import numpy as np
from sklearn.linear_model import RidgeClassifier

from odfa.features import OpticalFeatures
from odfa.tasks.vision.fashion import load_fashion


def main() -> None:
    """Fit and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--components", type=int, default=100_000)
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=1e-2, help="over the mean square of a centred feature vector")
    arguments = parser.parse_args()
    data = load_fashion()
    x, y = (part[: arguments.images].numpy() for part in (data.train.x_ND.float(), data.train.y_N))
    start = time.perf_counter()
    features = OpticalFeatures(arguments.components, levels=arguments.levels, random_state=0).fit(x)
    seen = _per_row(features.transform(x))
    print(f"{len(x)} images -> {arguments.components} components: {time.perf_counter() - start:.0f} s", flush=True)
    model = RidgeClassifier(alpha=arguments.alpha * float(np.var(seen[:500], axis=0).sum()), copy_X=False)
    model.fit(seen, y)
    del seen
    test, right = data.test.x_ND.float().numpy(), 0
    for first in range(0, len(test), 1000):
        rows = slice(first, first + 1000)
        right += int((model.predict(_per_row(features.transform(test[rows]))) == data.test.y_N[rows].numpy()).sum())
    print(f"test accuracy {right / len(test):.2%} after {time.perf_counter() - start:.0f} s", flush=True)


def _per_row(seen: np.ndarray) -> np.ndarray:
    """Intensities over their mean in each row: the number of lit mirrors is common to all outputs and tells little."""
    seen /= seen.mean(axis=1, keepdims=True)
    return seen


if __name__ == "__main__":
    main()
