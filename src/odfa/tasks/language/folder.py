"""Builds a model without weights from a folder with a config.json of transformers; code in the folder is never run."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from odfa.data import needs, quietly
from odfa.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_MOST_LAYERS = 1000
"""Limit of a config's layers: building more modules would take minutes, even without weights."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A causal language model on torch's meta device, that is without weights."""

    model: nn.Module
    positions: int | None
    """Longest sequence that the model can take; None: no limit."""
    left_out: tuple[str, ...] = ()
    """Parts of a model of text and other media that are not in `model`, by their names in config.json."""


def from_folder(folder: Path, dtype: torch.dtype) -> Pretrained:
    """The causal language model that config.json describes; of a model of text and other media only the part for text.

    Raises:
        ConfigError: there is no config, it names code of its own, it is an encoder-decoder, or transformers has no
            causal language model for it.
    """
    values = _read(folder / "config.json")
    with needs("transformers", "models by folder"), quietly():
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    # auto_map is looked for in every nested config: any of them could name code that transformers would import
    kind = values.get("model_type")
    known = isinstance(kind, str) and kind in CONFIG_MAPPING
    if any("auto_map" in part for part in _parts(values)):
        instead = f"without auto_map, the class of transformers for {kind} is planned" if known else "give a module"
        raise ConfigError(
            f"{folder}: config.json names code of its own (auto_map), which is never run here; {instead}"
            + ("" if known else " as package.module:function")
        )
    if not known:
        raise ConfigError(f"{folder}: expected a model_type that transformers knows in config.json, got {kind!r}")
    with quietly(), warnings.catch_warnings(action="ignore"):
        try:
            whole = CONFIG_MAPPING[str(kind)].from_dict(values)
            text = _text_of(whole, folder)
            planned = next((part for part in (text, whole) if type(part) in MODEL_FOR_CAUSAL_LM_MAPPING), None)
            if planned is None:
                raise ConfigError(
                    f"{folder}: transformers has no causal language model for {text.model_type}; "
                    "package.module:function plans any module"
                )
            with torch.device("meta"):
                make: Any = AutoModelForCausalLM.from_config
                model: nn.Module = make(planned, dtype=dtype, trust_remote_code=False)
        except ConfigError:
            raise
        except Exception as error:  # a damaged config can make transformers raise anything
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(
                f"{folder}: transformers cannot build a model from config.json: {why}; repair it"
            ) from error
    empty = [name for name, parameter in model.named_parameters() if not parameter.numel()]
    if empty:
        raise ConfigError(f"{folder}: expected sizes above 0 in config.json, but {empty[0]} holds no number")
    parts = () if isinstance(model.config, type(whole)) else whole.sub_configs
    left_out = tuple(name for name in parts if getattr(whole, name, None) not in (None, text))
    return Pretrained(model=model, positions=_positions(text), left_out=left_out)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(f"{path}: expected a config of transformers as JSON: {why}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _parts(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object in a config, the config itself first."""
    found = [values]
    for part in found:  # the list grows while it is walked, instead of a recursion that deep nesting would exhaust
        yield part
        for value in part.values():
            inner = value if isinstance(value, list) else [value]
            found += [entry for entry in inner if isinstance(entry, dict)]


def _text_of(whole: "PretrainedConfig", folder: Path) -> "PretrainedConfig":
    """The config of the part for text.

    Raises:
        ConfigError: it is an encoder-decoder, or has no sensible number of layers.
    """
    text = whole if whole.is_encoder_decoder else whole.get_text_config(decoder=True)
    if text.is_encoder_decoder:
        raise ConfigError(
            f"{folder}: {text.model_type} is an encoder-decoder; give package.module:function, which returns the model "
            "and (tokens in, attention mask, tokens out)"
        )
    layers = getattr(text, "num_hidden_layers", None)
    if not isinstance(layers, int) or not 1 <= layers <= _MOST_LAYERS:
        raise ConfigError(f"{folder}: expected 1 to {_MOST_LAYERS} layers in config.json, got {layers!r}")
    # a config may name a kernel for attention or experts that transformers would download and run
    text._attn_implementation = text._experts_implementation = None
    return text


def _positions(text: "PretrainedConfig") -> int | None:
    """The longest sequence that the config allows, under any of the names that families give to it."""
    names = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "context_length")
    found = (getattr(text, name, None) for name in names)
    return next((positions for positions in found if isinstance(positions, int)), None)
