"""Time and memory of one scaling curve to a trillion parameters: `python benchmarks/scaling_curve.py [family]`.

Every member is walked in four ways on the meta device and every method's cost worked out, in a process that has loaded
nothing before.
"""

import sys
import time
from pathlib import Path

start_s = time.perf_counter()

from odfa.scaling import PLANNED_METHODS, StepLayout, StudySettings, curve, get_opu, get_processor, step_cost  # noqa: E402

loaded_s = time.perf_counter()


def peak_bytes() -> int:
    """Largest resident size of this process; what its parent used is not in it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Print rows, seconds and gigabytes."""
    family = sys.argv[1] if len(sys.argv) > 1 else "both"
    members, opu = curve(StudySettings(), family, get_processor("a100")), get_opu("opu-2021")
    costs = [step_cost(model, method, opu, StepLayout()) for _, model in members for method in PLANNED_METHODS.values()]
    seconds, gigabytes = time.perf_counter() - loaded_s, peak_bytes() / 1e9
    print(
        f"{family}: {len(costs)} costs to {members[-1][1].parameters:.2g} parameters in {seconds:.1f} s "
        f"(imports {loaded_s - start_s:.1f} s besides), {gigabytes:.2f} GB"
    )


if __name__ == "__main__":
    main()
