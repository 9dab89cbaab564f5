"""The plan of one model: whether it fits, what each way of training costs, what limits it, what to change first."""

import difflib
import importlib
import inspect
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odfa import recipes
from odfa.data import quietly
from odfa.engine.rules.head import HeadRule
from odfa.errors import ConfigError, Incompatible, MatchError
from odfa.saved import Json
from odfa.scaling.advice import proposed
from odfa.scaling.assumptions import assumed
from odfa.scaling.cost import WalkKey, step_cost
from odfa.scaling.family import Gpt
from odfa.scaling.method import PLANNED_METHODS
from odfa.scaling.model import model_of, walks_of_gpt, walks_of_module, walks_of_run
from odfa.scaling.plan_settings import PlanSettings
from odfa.scaling.walk import Walk
from odfa.session import RunConfig
from odfa.session.memory import check_memory
from odfa.settings import SettingError, require, tag_of
from odfa.tasks.language.folder import from_folder

SIZES: dict[str, tuple[int, int, int, int]] = {
    "gpt2": (12, 768, 50304, 1024),
    "gpt2-medium": (24, 1024, 50304, 1024),
    "gpt2-large": (36, 1280, 50304, 1024),
    "gpt2-xl": (48, 1600, 50304, 1024),
    "gpt3-2.7b": (32, 2560, 50304, 2048),
    "gpt3-6.7b": (32, 4096, 50304, 2048),
    "gpt3-13b": (40, 5120, 50304, 2048),
    "gpt3-175b": (96, 12288, 50304, 2048),
    "gpt-1t": (128, 25600, 50304, 2048),
}
"""Depth, width, vocabulary and positions: GPT-2 (Radford et al. 2019) and GPT-3 (arXiv 2005.14165, table 2.1),
vocabulary padded to a multiple of 128, head untied, heads of 64; gpt-1t as in arXiv 2104.04473. A walk gives them
as many positions as a sequence has tokens."""
_CONTEXT = 1024
"""Tokens in a sequence where nothing is said."""
_MOST = 10**9
"""Largest number of tokens, blocks, and width of a GPT; larger ones are taken for typing errors."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is planned for: its walks and the sequences of a step."""

    name: str
    walks: dict[WalkKey, Walk]
    sequences: float
    rows: float | None = None
    """Rows of the output error in a step; None: all are projected, and so counted in the walks."""
    assumed: tuple[str, ...] = ()
    """Sentences on what the plan takes instead of what the recipe says."""
    left_out: tuple[str, ...] = ()
    """Parts of the model that are not planned for."""


def subject(name: str, config: PlanSettings) -> Subject:
    """A recipe, a GPT by name (gpt2-xl) or size (gpt:24x1024), a folder with a config of transformers, or
    package.module:function, which returns a run, or a module and a tuple of example inputs.

    Raises:
        ConfigError: no such model; the message gives the nearest names. MatchError: it cannot be walked.
        DataError: a recipe's data are missing.
    """
    known = recipes.listed()
    if name in known or name in recipes.registered():
        return _of_recipe(recipes.whole(name), config)
    if name in SIZES or name.startswith("gpt:"):
        return _of_gpt(name, config)
    if ":" in name:
        made = _factory(name)
        if isinstance(made, RunConfig):
            return _of_recipe(made, config)
        module, inputs = made
        _refuse(
            config,
            "its function gives the inputs",
            "tokens",
            "context",
            "granularity",
            "hops",
            "hop_every",
            "head_rows",
        )
        walks = walks_of_module(module, inputs)
        rows = walks["feedback", "keep"].rows
        return Subject(name=name, walks=walks, sequences=min(rows, len(inputs[0]) if inputs[0].ndim else 1))
    if name and (Path(name) / "config.json").is_file():
        return _of_folder(Path(name), config)
    if name and Path(name).is_dir():
        raise ConfigError(f"model: expected a config.json in the folder {name}")
    near = difflib.get_close_matches(name, [*known, *SIZES], n=3, cutoff=0.5) or [*known][:3] + [*SIZES][:3]
    raise ConfigError(
        f"unknown model {name!r}; did you mean {' or '.join(near)}? Or gpt:DEPTHxWIDTH, a folder with config.json, "
        "package.module:function"
    )


def _refuse(config: PlanSettings, why: str, *names: str) -> None:
    """Settings that this sort of model does not read.

    Raises:
        SettingError: one of them is not at its default.
    """
    usual = {entry.name: entry.default for entry in fields(PlanSettings)}
    for name in names:
        require(getattr(config, name) == usual[name], name, f"nothing set, as {why}", getattr(config, name))


def _of_recipe(run: RunConfig, config: PlanSettings) -> Subject:
    _refuse(config, f"the data of {run.recipe} say how long a sample is", "context")
    shape = run.data.peek()
    rows = run.network.num_rows(shape)
    if config.tokens is not None:
        if config.tokens % rows:
            raise ConfigError(
                f"tokens: {run.recipe} has {rows} error rows a sample, expected a multiple, got {config.tokens}"
            )
        run = replace(run, batch_size=config.tokens // rows)
    shape = replace(shape, num_train=max(shape.num_train, run.batch_size))
    walks = walks_of_run(_fine(run, config), shape, config.layout.precision)
    return Subject(
        name=run.recipe,
        walks=walks,
        sequences=run.batch_size,
        rows=run.batch_size * rows,
        assumed=tuple(assumed(run, config.opu)),
    )


def _fine(run: RunConfig, config: PlanSettings) -> RunConfig:
    """The recipe with the granularity, the hops and the rows of the head of the plan.

    Raises:
        ConfigError: its rule does not have them.
    """
    asked = {"hops": config.hops, "hop_every": config.hop_every}
    hops = {name: value for name, value in asked.items() if value is not None}
    if hops:
        if not isinstance(run.rule, HeadRule):
            told = f"{run.recipe} has rule={tag_of(run.rule)}, which cannot hop; expected none"
            raise SettingError(next(iter(hops)), told)
        run = replace(run, rule=replace(run.rule, **hops))
    if config.head_rows is not None:
        run = replace(run, memory=replace(run.memory, head_rows=config.head_rows))
        check_memory(run)
    if config.granularity == "block":
        return run
    if run.feedback is None:
        raise ConfigError(f"granularity: {run.recipe} has a rule that feeds no block, expected block")
    return replace(run, feedback=replace(run.feedback, granularity=config.granularity))


def _of_gpt(name: str, config: PlanSettings) -> Subject:
    if name in SIZES:
        depth, width, vocabulary, positions = SIZES[name]
    else:
        sizes = name.removeprefix("gpt:").split("x")
        if len(sizes) != 2 or not all(size.isascii() and size.isdigit() and int(size) for size in sizes):
            raise ConfigError(f"model: expected gpt:DEPTHxWIDTH, for instance gpt:24x1024, got {name!r}")
        depth, width, vocabulary, positions = int(sizes[0]), int(sizes[1]), 50304, None
        if max(depth, width) > _MOST:
            raise ConfigError(f"model: expected at most {_MOST:,} blocks and as much width, got {name!r}")
    tokens, context = _batch(name, positions, config)
    require(tokens > 1, "tokens", "2 or more, as each is predicted from those before it", tokens)
    hops, every = config.hops or 0, config.hop_every or 1
    gpt = Gpt(
        depth=depth, width=width, tokens=tokens, context=context, vocabulary=vocabulary, hops=hops, hop_every=every,
        head_rows=config.head_rows,
    )  # fmt: skip
    require(gpt.hops < depth, "hops", f"at most {depth - 1}, as {name} has {depth} blocks", gpt.hops)
    walks = walks_of_gpt(gpt, config.layout.precision, config.granularity)
    return Subject(name=name, walks=walks, sequences=tokens / context)


def _batch(name: str, positions: int | None, config: PlanSettings) -> tuple[int, int]:
    """Tokens of a step and of a sequence.

    Raises:
        ConfigError: more in a sequence than the model has positions for, or no whole sequences.
    """
    context = config.context or min(_CONTEXT, config.tokens or _CONTEXT)
    # eight sequences: 8,192 tokens at the usual context, as in the study
    tokens = config.tokens or 8 * context
    if positions is not None and context > positions:
        raise ConfigError(
            f"context: expected at most the {positions} positions of {name}, got {context}; context={positions} fits"
        )
    require(tokens % context == 0, "tokens", f"whole sequences of {context} tokens", tokens)
    return tokens, context


def _of_folder(folder: Path, config: PlanSettings) -> Subject:
    _refuse(config, "a model by folder is planned block by block", "granularity", "hops", "hop_every", "head_rows")
    found = from_folder(folder, torch.float32 if config.layout.precision == "float32" else torch.bfloat16)
    tokens, context = _batch(folder.name, found.positions, config)
    ids_NT = torch.zeros(tokens // context, context, dtype=torch.long, device="meta")
    with quietly():  # libraries advise on running models with weights
        walks = walks_of_module(found.model, (ids_NT,))
    return Subject(name=folder.name, walks=walks, sequences=tokens / context, left_out=found.left_out)


def _factory(name: str) -> RunConfig | tuple[nn.Module, tuple[Tensor, ...]]:
    path, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(path), function)
        with torch.device("meta"):  # nothing is allocated, so that models of any size can be planned for
            made: Any = make() if callable(make) and not inspect.signature(make).parameters else None
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"model: {name!r} cannot be imported: {why}; expected package.module:function") from error
    if isinstance(made, RunConfig):
        return made
    if not (_is_pair(made) and isinstance(made[0], nn.Module) and isinstance(made[1], tuple | list) and made[1]):
        raise ConfigError(
            f"model: {name} must be a function without arguments that returns a RunConfig or (module, (inputs, …))"
        )
    strange = [entry for entry in made[1] if not isinstance(entry, Tensor)]
    if strange:
        raise ConfigError(f"model: {name} returns inputs, expected tensors, got {type(strange[0]).__name__}")
    return made[0], tuple(made[1])


def _is_pair(made: object) -> bool:
    return isinstance(made, tuple) and len(made) == 2


def make_plan(model_name: str, config: PlanSettings) -> Json:
    """The plan as JSON values.

    Raises:
        ConfigError, MatchError, DataError: see `subject`.
    """
    chosen = subject(model_name, config)
    model = model_of(chosen.walks, config.processor, chosen.sequences, rows=chosen.rows)
    rows, refused = [], {}
    # a method that this model or OPU cannot do is named with the reason; the others are still planned
    for name, method in PLANNED_METHODS.items():
        try:
            rows.append(step_cost(model, method, config.opu, config.layout))
        except (Incompatible, MatchError) as error:
            refused[name] = str(error)
        except KeyError:
            refused[name] = "not walked: running blocks again in backward is not known for this network"
    walk = chosen.walks["feedback", "keep"]
    if config.layout.devices > walk.depth:
        raise ConfigError(
            f"devices: {chosen.name} has {walk.depth:.0f} blocks to share, got {config.layout.devices} devices"
        )
    trained = chosen.walks["bp", "keep"]
    fastest = min(rows, key=lambda row: (not row.fits, row.step_s))
    return {
        "model": chosen.name,
        "parameters": round(model.parameters),
        "blocks": round(walk.depth),
        "left_out": list(chosen.left_out),
        "assumed": list(chosen.assumed),
        "without_gradient": round(trained.parameters - trained.updated),
        "estimated": sorted(frozenset().union(*(walk.estimated for walk in chosen.walks.values()))),
        "rows_per_step": round(model.tokens),
        "projection": {"inputs": round(walk.row_width), "outputs": round(walk.signal_width)},
        "processor": {"name": config.processor.name, "source": config.processor.source},
        "opu": {"name": config.opu.name, "source": config.opu.source, "peak_ops_per_s": config.opu.peak_ops_per_s},
        "vectors": config.layout.vectors,
        "devices": config.layout.devices,
        "methods": [{**row.to_json(), "tokens_per_s": model.tokens / row.step_s} for row in rows],
        "refused": refused,
        "fastest": fastest.method,
        "change_first": [] if "odfa" in refused else proposed(model, config),
    }
