"""Steps of GPT-2: their time, their peak memory, and tokens a second above a billion parameters."""

from dataclasses import replace

from measuring import interleaved, peak_bytes, reason, release

from accelerator_parts.found import Found, Setting
from accelerator_parts.gpt import Method, Size, methods, step, steps, through_twin

LARGE = Size(blocks=12, width=768, heads=12, vocabulary=50_304, batch=8, context=1024, rank=96)
SMALL = Size(blocks=2, width=32, heads=2, vocabulary=128, batch=2, context=16, rank=4)
BILLION = Size(blocks=26, width=2048, heads=16, vocabulary=2048, batch=8, context=1024, rank=64, pure=True)
BILLION_SMALL = Size(blocks=2, width=64, heads=2, vocabulary=128, batch=2, context=16, rank=4, pure=True)
_BUDGET_S = 30.0
"""No round of steps begins so long after the first one."""


def step_times(setting: Setting) -> Found:
    """Seconds of a step: first nothing compiled, all methods interleaved, then each with compiled blocks."""
    size, rounds, warm = (SMALL, 2, 2) if setting.small else (LARGE, 11, 3)
    found = Found(unit="s", more={"size": size.as_json()})
    for how in ("eager", "compiled"):
        chosen = {f"{name}, {how}": method for name, method in methods(size).items()}
        calls = steps(chosen, setting, found, compiled=how == "compiled")
        found.measured |= interleaved(
            calls, rounds, device=setting.device, warm=warm, budget_s=_BUDGET_S, failed=found.failed
        )
        calls.clear()
        release(setting.device)
    return found


def memory(setting: Setting) -> Found:
    """Bytes of tensors at the peak of a step, weights and moments included, each method alone on the device."""
    size = SMALL if setting.small else LARGE
    found, known = Found(unit="bytes", more={"size": size.as_json()}), methods(size)
    chosen = {name: known[name] for name in ("bp", "aligned, exact error")}
    aligned, rows = known["aligned, exact error"], size.batch * size.context // 8
    streamed = replace(aligned, feedback={**(aligned.feedback or {}), "recompute": "stream"})
    chosen |= {"aligned, exact error, stream": streamed}
    # the head an eighth of the tokens at a time, for both
    chosen |= {f"{name}, head in rows": replace(method, head_rows=rows) for name, method in chosen.items()}
    for name, method in chosen.items():
        try:
            peak = peak_bytes(lambda method=method: step(method, setting, compiled=True), setting.device)
            found.measured[name] = [float(peak)]
        except Exception as error:
            found.failed[name] = reason(error)
        release(setting.device)
    return found


def billion(setting: Setting) -> Found:
    """Tokens a second of a GPT-2 of 1.3 billion parameters in bfloat16, by the twin and by backpropagation."""
    size, rounds, warm = (BILLION_SMALL, 2, 2) if setting.small else (BILLION, 5, 3)
    found = Found(unit="tokens/s", more={"size": size.as_json()})
    chosen = {"bp": Method(size=size, feedback=None), "odfa": Method(size=size, feedback=through_twin(size))}
    calls = steps(chosen, setting, found, compiled=True)
    seconds = interleaved(calls, rounds, device=setting.device, warm=warm, budget_s=_BUDGET_S, failed=found.failed)
    tokens = size.batch * size.context
    found.measured |= {name: [tokens / taken for taken in each] for name, each in seconds.items()}
    calls.clear()
    release(setting.device)
    return found
