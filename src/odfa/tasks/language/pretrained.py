"""A network from a folder of transformers: with the weights in it, or with random ones if it has only a config."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odfa.data import DataShape, Splits, needs, quietly
from odfa.errors import ConfigError
from odfa.tasks.language.folder import Pretrained, from_folder
from odfa.tasks.language.text import TextSplits
from odfa.tasks.language.transformer import TokenNetwork

_NORMS = ("ln_2", "post_attention_layernorm")
"""Names that families give to the norm in front of a block's MLP."""
_ENDS = (("attn.c_proj", "mlp.c_proj"), ("self_attn.o_proj", "mlp.down_proj"))
"""Names that families give to the linear maps that end a block's attention and MLP."""


@dataclass(frozen=True, kw_only=True)
class PretrainedNetwork(TokenNetwork, kind="pretrained"):
    """A causal language model from a folder of transformers, with its weights, or random ones if it has none."""

    path: Path | None = None
    """Folder with config.json, and model.safetensors and tokenizer.json if the model was trained before, on tokens of
    the data's vocabulary; no code of the folder is run."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each block's output."""
        config: Any = self._found().model.config
        return (int(config.hidden_size),) * len(self.blocks)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, first to last: the first list of modules with as many entries as the config has layers.

        Raises:
            ConfigError: the model has no such list.
        """
        model: Any = self._found().model
        layers = model.config.num_hidden_layers
        for name, module in model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == layers:
                return tuple(f"{name}.{k}" for k in range(layers))
        raise ConfigError(f"{self._folder()}: expected a list of {layers} blocks in {type(model).__name__}, found none")

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the norms in front of the MLPs; empty unless the family's names are known."""
        return next(self._in_every_block((name,) for name in _NORMS), ())

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear maps at the end of attention and MLP; empty unless the family's names are known."""
        return next(self._in_every_block(_ENDS), ())

    @property
    def learned(self) -> bool:
        """Whether the folder holds weights."""
        return _has_weights(self._folder())

    def check_splits(self, splits: Splits) -> None:
        """Weights that have learned know tokens by number: the numbers of the data must be those of the folder.

        Raises:
            ConfigError: the folder has no tokenizer.json, or another vocabulary. MissingExtra: no tokenizers.
        """
        if not self.learned:
            return
        folder, instead = self._folder(), "or a folder with config.json alone, whose weights are drawn anew"
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise ConfigError(
                f"network.path: the weights of {folder} have learned, but which tokens they know cannot be told: "
                f"expected tokenizer.json beside them, {instead}"
            )
        with needs("tokenizers", "language models"):
            from tokenizers import Tokenizer
        try:
            theirs: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab()
        except Exception as error:  # tokenizers raises plain Exception
            raise ConfigError(f"network.path: {file} cannot be read: {error}; expected a tokenizer.json") from error
        ours: dict[str, int] = splits.tokenizer.get_vocab() if isinstance(splits, TextSplits) else {}
        if theirs != ours:
            same = len(theirs.items() & ours.items())
            raise ConfigError(
                f"network.path: the weights of {folder} know other tokens than the data, whose vocabulary is made of "
                f"their own text ({same} of {len(theirs)} tokens have the same number): expected a folder that odfa "
                f"export wrote of a run on these data, {instead}"
            )

    def build(self, shape: DataShape) -> nn.Module:
        """The model with the folder's weights, or with random ones if there are none or on the meta device.

        Raises:
            ConfigError: there is no such folder, its vocabulary is not that of the data, it has fewer positions than
                their context, or its weights cannot be read.
        """
        folder, found = self._folder(), self._found()
        config: Any = found.model.config
        if config.vocab_size != shape.num_classes:
            raise ConfigError(
                f"data.vocabulary: expected {config.vocab_size}, the entries of {folder}, got {shape.num_classes}"
            )
        if found.positions is not None and shape.num_features > found.positions:
            raise ConfigError(
                f"data.context: expected at most {found.positions}, the positions of {folder}, got {shape.num_features}"
            )
        with needs("transformers", "language models"), quietly():
            from transformers import AutoModelForCausalLM
        make: Any = AutoModelForCausalLM
        dtype, on_meta = torch.get_default_dtype(), torch.get_default_device().type == "meta"
        if on_meta or not self.learned:
            model: nn.Module = make.from_config(config, dtype=dtype, trust_remote_code=False)
            return model
        try:
            with quietly():
                return make.from_pretrained(  # type: ignore[no-any-return]
                    folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
                )
        except Exception as error:  # damaged weights can make the library raise anything
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(
                f"network.path: the weights of {folder} cannot be read: {why}; repair them, or "
                "remove them to start from random ones"
            ) from error

    def _folder(self) -> Path:
        if self.path is None:
            raise ConfigError("network.path: expected a folder with a config.json of transformers, got none")
        folder = Path(self.path).expanduser()
        if not (folder / "config.json").is_file():
            raise ConfigError(f"network.path: expected a folder with a config.json of transformers, got {folder}")
        return folder

    def _found(self) -> Pretrained:
        """The model without weights; kept, since every property asks for it."""
        folder = self._folder()
        return _read(folder, (folder / "config.json").stat().st_mtime_ns)

    def _in_every_block(self, choices: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
        """The groups of names that exist in every block, each written out for all blocks."""
        known = dict(self._found().model.named_modules())
        for names in choices:
            full = tuple(f"{block}.{name}" for block in self.blocks for name in names)
            if all(name in known for name in full):
                yield full


@lru_cache(maxsize=4)
def _read(folder: Path, _changed_ns: int) -> Pretrained:
    """The model of the folder on the meta device; the time of the config's last change is part of the cache's key."""
    return from_folder(folder, torch.float32)


def _has_weights(folder: Path) -> bool:
    if any(folder.glob("*.safetensors")):
        return True
    pickled = sorted(folder.glob("*.bin"))
    if pickled:
        raise ConfigError(
            f"network.path: {pickled[0]} is a pickle, which may run code when it is read; expected model.safetensors"
        )
    return False
