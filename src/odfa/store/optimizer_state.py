"""What an optimiser remembers: tensors `<parameter>.<moment>`, and back once every one of them fits its parameter.

A parameter is called by its number, with updates fused into backward by its name.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from odfa.engine import FusedOptimizer
from odfa.saved import misfit
from odfa.store.shards import damaged, read_forms, read_tensors

STEM = "optimizer"
AnyOptimizer = torch.optim.Optimizer | FusedOptimizer
_NEVER_NEGATIVE = "exp_avg_sq"


def moments(optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """All that `optimizer` remembers."""
    if isinstance(optimizer, FusedOptimizer):
        states = {name: one["state"].get(0, {}) for name, one in optimizer.state_dict().items()}
    else:
        states = optimizer.state_dict()["state"]
    return {f"{of}.{name}": value for of, entry in states.items() for name, value in entry.items() if value is not None}


def parameters_with(names: dict[str, Tensor]) -> list[str]:
    """The parameters that these moments belong to; the others have not learned yet."""
    return sorted({name.rpartition(".")[0] for name in names})


def load_moments(optimizer: AnyOptimizer, files: dict[str, Path], learned: list[str], step: int) -> None:
    """Fill `optimizer`; one that is fused parameter by parameter, so that its state is never all here twice.

    Args:
        learned: the parameters that must have moments.
        step: steps of the run so far; no parameter can have done more.

    Raises:
        CheckpointError: a moment is missing, unknown, of another shape or type than its parameter, or out of range.
            What was filled before it was found is of no use.
    """
    forms = _forms(optimizer)
    _check_names(forms, files, learned)
    entries = _entries(files, forms, step)
    if isinstance(optimizer, FusedOptimizer):
        for of, entry in entries:
            _fill(optimizer.optimizers[of], {0: entry})
    else:
        _fill(optimizer, {int(of): entry for of, entry in entries})


def _forms(optimizer: AnyOptimizer) -> dict[str, dict[str, Tensor]]:
    """The moments that each parameter may have, on the meta device."""
    if isinstance(optimizer, FusedOptimizer):
        return {name: _forms(one)["0"] for name, one in optimizer.optimizers.items()}
    grouped = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    forms: dict[str, dict[str, Tensor]] = {}
    for number, (parameter, group) in enumerate(grouped):
        like = torch.empty_like(parameter, device="meta")
        if isinstance(optimizer, torch.optim.SGD):
            forms[str(number)] = {"momentum_buffer": like} if group["momentum"] else {}
        else:
            forms[str(number)] = {"step": torch.empty((), device="meta"), "exp_avg": like, _NEVER_NEGATIVE: like}
    return forms


def _check_names(forms: dict[str, dict[str, Tensor]], files: dict[str, Path], learned: list[str]) -> None:
    saved = read_forms(files, STEM)
    where = _where(files)
    if parameters_with(saved) != learned or not set(learned) <= forms.keys():
        odd = sorted({*parameters_with(saved)} ^ {*learned} | {*learned} - forms.keys())[0]
        raise damaged(where, f"{where.name}: the moments of parameter {odd!a} are missing or nobody's")
    wrong = misfit(saved, {f"{of}.{name}": form for of in learned for name, form in forms[of].items()}, where.name)
    if wrong:
        raise damaged(where, wrong)


def _entries(
    files: dict[str, Path], forms: dict[str, dict[str, Tensor]], step: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each parameter's moments once the last of it is read: files sort by type first, and shards cut anywhere."""
    where = _where(files)
    begun = defaultdict[str, dict[str, Tensor]](dict)
    for key, tensor in read_tensors(files, STEM):
        of, _, name = key.rpartition(".")
        wrong = misfit(tensor, forms[of][name], f"{where.name}.{key}")
        if name == "step" and not 0 < float(tensor) <= step:
            wrong = f"{where.name}.{key}: expected 1 to {step}, got {float(tensor):g}"
        if name == _NEVER_NEGATIVE and tensor.numel() and float(tensor.amin()) < 0:
            wrong = f"{where.name}.{key}: expected nothing below zero, got {float(tensor.amin()):g}"
        if wrong:
            raise damaged(where, wrong)
        begun[of][name] = tensor
        if begun[of].keys() == forms[of].keys():
            yield of, begun.pop(of)


def _fill(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _where(files: dict[str, Path]) -> Path:
    """The file to name; of several shards the folder counts."""
    return files["state.json"].with_name(f"{STEM}.safetensors")
