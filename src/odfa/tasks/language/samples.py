"""What a trained language model says.

Shape letters: `C` texts · `T` tokens.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odfa.arms import name_of
from odfa.errors import ConfigError, RunFolderError
from odfa.keys import mix
from odfa.lab.samples import Samples, SampleSettings
from odfa.settings import SEEDS, SEEDS_TOLD, require, require_counts
from odfa.store import LoadedRun, load_run
from odfa.store.kept import kept_tokenizer
from odfa.tasks.language.dialogue import SPEAKERS
from odfa.tasks.language.text import TextData

_SAMPLE_KEY = 0x5A3F_0001
_MOST = 1000
_COLDEST, _HOTTEST = 0.01, 100.0
"""Logits over a smaller temperature overflow; over a larger one they say nothing."""


@dataclass(frozen=True, kw_only=True)
class TextSamples(SampleSettings, kind="text"):
    """Texts that continue a prompt, up to the end of a document or of the context; equal seeds give equal texts."""

    prompt: str = ""
    """What was said before. In a corpus of dialogues a prompt without speaker tokens is taken for the first speaker's
    turn, and the model answers as the second."""
    count: int = 3
    """Number of texts."""
    tokens: int | None = None
    """Most tokens to add; none: as many as the context has room for."""
    temperature: float = 0.8
    """Of the softmax, 0.01 to 100; 0 takes the likeliest token each time."""
    seed: int = 0
    """Key of the draws."""

    def __post_init__(self) -> None:
        require(0 < self.count <= _MOST, "count", f"1 to {_MOST} texts", self.count)
        require_counts(self, "tokens")
        fits = self.temperature == 0 or _COLDEST <= self.temperature <= _HOTTEST
        require(fits, "temperature", f"0, or {_COLDEST:g} to {_HOTTEST:g}", self.temperature)
        require(self.seed in SEEDS, "seed", SEEDS_TOLD, self.seed)
        require(_is_unicode(self.prompt), "prompt", "text in UTF-8", self.prompt)

    def make(self, run_dirs: Sequence[Path | str]) -> Samples:
        """Texts of one run after the other; the corpus itself is not needed.

        Raises:
            RunFolderError, CheckpointError: see `load_run`.
            ConfigError: not a language model, or a prompt that fills the context.
        """
        runs = [self._of_run(run_dir) for run_dir in run_dirs]
        parts = [
            f"--- {run['recipe']}, arm {run['arm']}: {run['run']}\n\n" + "\n\n".join(map(_readable, run["samples"]))
            for run in runs
        ]
        return Samples(json={"runs": runs}, text="\n\n".join(parts) + "\n")

    def _of_run(self, run_dir: Path | str) -> dict[str, Any]:
        """The texts of one run, with what names it."""
        run = load_run(run_dir)
        data = run.config.data
        if not isinstance(data, TextData):
            raise ConfigError(f"{run_dir} is a run of {run.config.recipe}, which does not write; sample a dialogue run")
        tokenizer = kept_tokenizer(run.path, run.kept)
        end = tokenizer.token_to_id(data.end)
        if end is None:
            raise RunFolderError(
                f"{run_dir}/tokenizer.json has no token {data.end!r}, which ends documents; restore it"
            )
        opened = _opened(self.prompt, data.end, has_turns=run.kept.has_turns)
        ids_T = torch.tensor(tokenizer.encode(opened).ids)
        room = data.context - len(ids_T)
        if room < 1 or (self.tokens is not None and self.tokens > room):
            advice = f"expected 1 to {room} tokens to add" if room > 0 else "give a shorter prompt"
            raise ConfigError(
                f"the prompt takes {len(ids_T)} of the context of {data.context} tokens, got "
                f"tokens={self.tokens or 'all that fit'}; {advice}"
            )
        written_CT = _generate(
            run, ids_T.expand(self.count, -1), self.tokens or room, temperature=self.temperature, seed=self.seed
        )
        # rows are written to the full length: what a row says does not depend on where another one ends
        kept = [_one_document(written_T.tolist(), len(ids_T), end) for written_T in written_CT]
        return {
            "run": str(run_dir),
            "recipe": run.config.recipe,
            "arm": name_of(run.config),
            "prompt": self.prompt,
            "samples": [tokenizer.decode(ids, skip_special_tokens=False) for ids in kept],
        }


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can spell it: bytes of the command line that are no text arrive as lone surrogates."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def _opened(prompt: str, end: str, *, has_turns: bool) -> str:
    """The prompt as the corpus would write it; without one, what stands in front of a document."""
    first, second = SPEAKERS
    if not has_turns or any(token in prompt for token in SPEAKERS):
        return prompt or end
    return f"{first}{prompt}{second}" if prompt else first


def _one_document(ids: list[int], num_given: int, end: int) -> list[int]:
    """Tokens up to the first one behind the prompt that ends a document; an end token in front of all is left out."""
    last = next((place for place in range(num_given, len(ids)) if ids[place] == end), len(ids))
    return ids[int(ids[0] == end) : last]


def _readable(text: str) -> str:
    """Speaker tokens as the beginnings of lines."""
    for token, name in zip(SPEAKERS, "AB", strict=True):
        text = text.replace(token, f"\n{name}: ")
    return text.strip()


def _generate(run: LoadedRun, ids_CT: Tensor, tokens: int, *, temperature: float, seed: int) -> Tensor:
    """Token numbers (C, T): those given and `tokens` more."""
    drawing: dict[str, bool | float] = {"do_sample": False}
    if temperature > 0:
        drawing = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), run.computing():
        warnings.simplefilter("ignore")  # transformers warns of token numbers that these models do not have
        torch.manual_seed(mix(_SAMPLE_KEY, seed))
        written: Tensor = run.model.generate(  # type: ignore[operator]
            input_ids=ids_CT, attention_mask=torch.ones_like(ids_CT), max_new_tokens=tokens, pad_token_id=0, **drawing
        )
    return written
