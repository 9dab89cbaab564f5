"""A trained language model as a folder that `transformers` loads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from odfa.data import needs
from odfa.errors import ConfigError, RunFolderError
from odfa.files import new_folder
from odfa.lab.destination import check_folder, writing
from odfa.store import load_run
from odfa.store.kept import kept_tokenizer
from odfa.tasks.language.dialogue import SPEAKERS
from odfa.tasks.language.text import TextData


def export(run_dir: Path | str, out_dir: Path | str, *, shard: str = "2GB") -> dict[str, Any]:
    """Write the run's model and tokenizer so that `AutoModelForCausalLM.from_pretrained(out_dir)` loads them.

    Weights go into safetensors files of at most `shard`. The folder appears whole or not at all.

    Raises:
        RunFolderError: not a run folder, `out_dir` exists, or it cannot be written. CheckpointError: no checkpoint.
        ConfigError: not a language model, or `out_dir` is no place for a folder.
    """
    out = check_folder(Path(out_dir), "folder")
    if os.path.lexists(out):
        raise RunFolderError(f"{out} exists; name a folder that does not")
    run = load_run(run_dir)
    config = run.config.data
    if not isinstance(config, TextData):
        raise ConfigError(f"{run_dir} is a run of {run.config.recipe}; only language models can be exported")
    with needs("transformers", "exports"):
        from transformers import PreTrainedTokenizerFast
    words = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=kept_tokenizer(run.path, run.kept),
        eos_token=config.end,
        additional_special_tokens=list(SPEAKERS),
        model_max_length=config.context,
    )
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with writing(out), _without_bars(), new_folder(out) as partial:
        run.model.save_pretrained(partial, max_shard_size=shard)  # type: ignore[operator]
        words.save_pretrained(partial)
    files = sorted(file.name for file in out.iterdir())
    return {"run": str(run_dir), "folder": str(out), "files": files}


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library draws a bar over shards, also where nobody looks; as before behind it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
