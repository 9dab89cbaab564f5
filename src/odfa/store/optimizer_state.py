"""Saves and restores the state of an optimiser as tensors named `<parameter>.<moment>`.

`<parameter>` is the number of the parameter in the optimiser; for updates that are fused into the backward pass, which
have one optimiser per parameter, it is the name of the parameter.
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
"""Adam's mean of squares: its root is taken, so a negative value would turn weights into NaN."""


def moments(optimizer: AnyOptimizer) -> dict[str, Tensor]:
    """All tensors in the state of `optimizer`, by `<parameter>.<moment>`."""
    if isinstance(optimizer, FusedOptimizer):
        states = {name: one["state"].get(0, {}) for name, one in optimizer.state_dict().items()}
    else:
        states = optimizer.state_dict()["state"]
    return {f"{of}.{name}": value for of, entry in states.items() for name, value in entry.items() if value is not None}


def parameters_with(names: dict[str, Tensor]) -> list[str]:
    """The parameters that have a moment among these names; the others have had no gradient yet."""
    return sorted({name.rpartition(".")[0] for name in names})


def load_moments(optimizer: AnyOptimizer, files: dict[str, Path], learned: list[str], step: int) -> None:
    """Fill the state of `optimizer`; a fused one parameter by parameter, so that the state is never in memory twice.

    Args:
        learned: the parameters that must have moments.
        step: number of steps of the run so far; no parameter can have been updated more often.

    Raises:
        CheckpointError: a moment is missing, unknown, of another shape or type than its parameter, or out of range.
            The optimiser may be half filled then and must not be used.
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
    """The moments that each parameter may have, as tensors on the meta device: types and shapes without values."""
    if isinstance(optimizer, FusedOptimizer):
        return {name: _forms(one)["0"] for name, one in optimizer.optimizers.items()}
    # numbered over all groups in order, as torch numbers them in state_dict
    grouped = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    forms: dict[str, dict[str, Tensor]] = {}
    for number, (parameter, group) in enumerate(grouped):
        like = torch.empty_like(parameter, device="meta")
        if "ns_steps" in group:  # matrices that Muon moves, beside others that Adam does
            forms[str(number)] = {"momentum_buffer": like}
        elif isinstance(optimizer, torch.optim.SGD):
            forms[str(number)] = {"momentum_buffer": like} if group["momentum"] else {}
        else:
            forms[str(number)] = {"step": torch.empty((), device="meta"), "exp_avg": like, _NEVER_NEGATIVE: like}
    return forms


def _check_names(forms: dict[str, dict[str, Tensor]], files: dict[str, Path], learned: list[str]) -> None:
    # the list `learned` and the tensors are saved separately: both must name the same parameters, all of them known
    saved = read_forms(files, STEM)
    where = _where(files)
    if parameters_with(saved) != learned or not set(learned) <= forms.keys():
        odd = sorted({*parameters_with(saved)} ^ {*learned} | {*learned} - forms.keys())[0]
        raise damaged(
            where,
            f"{where.name}: expected the moments of the parameters in state.json, but {odd!a} is missing or unknown",
        )
    wrong = misfit(saved, {f"{of}.{name}": form for of in learned for name, form in forms[of].items()}, where.name)
    if wrong:
        raise damaged(where, wrong)


def _entries(
    files: dict[str, Path], forms: dict[str, dict[str, Tensor]], step: int
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each parameter with its moments, as soon as all of them are read."""
    # safetensors sorts by type before name, and a shard may end anywhere: moments of one parameter can be far apart
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
    # the groups come from the run's config, never from the checkpoint
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _where(files: dict[str, Path]) -> Path:
    """The file that a message names, also if its tensors are split over several files."""
    return files["state.json"].with_name(f"{STEM}.safetensors")
