"""What a trained language model says."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.arms import name_of
from odfa.errors import ConfigError
from odfa.keys import mix
from odfa.settings import SEEDS, SEEDS_TOLD, require
from odfa.store import LoadedRun, load_run
from odfa.store.kept import kept_tokenizer
from odfa.tasks.language.dialogue import SPEAKERS
from odfa.tasks.language.text import TextData
from odfa.tasks.language.tokens import END

_SAMPLE_KEY = 0x5A3F_0001
_MOST = 1000
_COLDEST, _HOTTEST = 0.01, 100.0
"""Logits over a smaller temperature overflow; over a larger one they say nothing."""


def sample(
    run_dir: Path | str,
    prompt: str = "",
    *,
    count: int = 1,
    tokens: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Texts that the run's model continues `prompt` with, up to the end of a conversation or of its context.

    In a corpus of dialogues a prompt without speaker tokens is taken for the first speaker's turn, and the model
    answers as the second. Equal seeds give equal texts. The corpus itself is not needed.

    Args:
        count: number of texts.
        tokens: most tokens to add; None: as many as the context has room for.
        temperature: of the softmax, 0.01 to 100; 0 takes the likeliest token each time.

    Raises:
        RunFolderError: not a run folder. CheckpointError: no checkpoint, or one of another architecture.
        ConfigError: not a language model, a prompt that fills the context, or a number out of range.
    """
    require(0 < count <= _MOST, "count", f"1 to {_MOST} texts", count)
    require(tokens is None or tokens > 0, "tokens", "a positive number", tokens)
    fits = temperature == 0 or _COLDEST <= temperature <= _HOTTEST
    require(fits, "temperature", f"0, or {_COLDEST:g} to {_HOTTEST:g}", temperature)
    require(seed in SEEDS, "seed", SEEDS_TOLD, seed)
    require(_is_unicode(prompt), "prompt", "text in UTF-8", prompt)
    run = load_run(run_dir)
    if not isinstance(run.config.data, TextData):
        raise ConfigError(f"{run_dir} is a run of {run.config.recipe}, which does not write; sample a dialogue run")
    tokenizer = kept_tokenizer(run.path, run.kept)
    ids_T = torch.tensor(tokenizer.encode(_opened(prompt, has_turns=run.kept.has_turns)).ids)
    room = run.config.data.context - len(ids_T)
    if room < 1 or (tokens is not None and not 0 < tokens <= room):
        advice = f"expected 1 to {room} tokens to add" if room > 0 else "give a shorter prompt"
        raise ConfigError(
            f"the prompt takes {len(ids_T)} of the context of {run.config.data.context} tokens, got "
            f"tokens={tokens or 'all that fit'}; {advice}"
        )
    written_CT = _generate(run, ids_T.expand(count, -1), tokens or room, temperature, seed)
    texts = [tokenizer.decode(written_T.tolist(), skip_special_tokens=False) for written_T in written_CT]
    return {
        "run": str(run_dir),
        "recipe": run.config.recipe,
        "arm": name_of(run.config),
        "prompt": prompt,
        "samples": [text.partition(END)[0] for text in texts],
    }


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can spell it: bytes of the command line that are no text arrive as lone surrogates."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _opened(prompt: str, *, has_turns: bool) -> str:
    """The prompt as the corpus would write it."""
    first, second = SPEAKERS
    if not has_turns or any(token in prompt for token in SPEAKERS):
        return prompt or END
    return f"{first}{prompt}{second}" if prompt else first


def _generate(run: LoadedRun, ids_CT: Tensor, tokens: int, temperature: float, seed: int) -> Tensor:
    drawing: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        drawing = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns of token numbers that these models do not have
        torch.manual_seed(mix(_SAMPLE_KEY, seed))
        written: Tensor = run.model.generate(  # type: ignore[operator]
            input_ids=ids_CT, attention_mask=torch.ones_like(ids_CT), max_new_tokens=tokens, pad_token_id=0, **drawing
        )
    return written
