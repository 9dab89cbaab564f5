"""Text as packed sequences of tokens; whole documents are held out.

Shape letters: `N` sequences · `T` tokens in context · `V` vocabulary.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from odfa.data import DataShape, Split, Splits, check_held_out, split_by_key
from odfa.errors import DataError
from odfa.settings import MAX_WIDTH, require, require_counts
from odfa.tasks.base import LimitedData
from odfa.tasks.language.dialogue import read_documents
from odfa.tasks.language.tokens import END, Corpus, encode_corpus, token_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASKED = -100
"""Target that the loss ignores, for the places that fill up the last sequence of a part."""
_SPLIT_KEY = 5
"""Key of the documents that are held out; it never changes, so that all runs share the test part."""


@dataclass(frozen=True, kw_only=True)
class TokenSplit(Split):
    """Sequences `x_ND` (N, T) and their next tokens `y_N` (N, T), MASKED where there is none.

    `bytes_V` has the number of bytes of text that each token stands for: bits per byte can be compared between
    vocabularies, perplexities cannot.
    """

    bytes_V: Tensor


@dataclass(frozen=True, kw_only=True)
class TextSplits(Splits):
    """Three parts of a corpus and the tokenizer that made them."""

    tokenizer: "Tokenizer"


def load_text(path: Path | str | None = None, *, context: int, vocabulary: int, holdout: float = 0.05) -> TextSplits:
    """Sequences of `context` tokens; a share `holdout` of the documents is held out for validation, as many for test.

    The documents of a part are joined to one stream, an END token after each, and the stream is cut into rows of
    `context` tokens. The target at each place is the next token of the stream. Only the last row of a part is filled
    up, with masked targets.

    Raises:
        DataError: there is no text, there are too few documents, or a part has fewer tokens than one context.
    """
    corpus, parts = _corpus(path, vocabulary, holdout)
    bytes_V = torch.from_numpy(token_bytes(corpus.tokenizer))
    train, validation, test = (
        _pack(corpus.join(part), context, bytes_V, f"{_name(path)}, {name} part") for name, part in parts
    )
    return TextSplits(
        train=train,
        validation=validation,
        test=test,
        num_classes=vocabulary,
        masked=MASKED,
        source=_name(path),
        tokenizer=corpus.tokenizer,
    )


def peek_text(path: Path | str | None = None, *, context: int, vocabulary: int, holdout: float = 0.05) -> DataShape:
    """Sizes of the parts; the corpus is encoded unless the cache has it.

    Raises:
        DataError: what `load_text` raises.
    """
    return load_text(path, context=context, vocabulary=vocabulary, holdout=holdout).shape


def read_tokenizer(path: Path | str | None = None, *, vocabulary: int, holdout: float = 0.05) -> "Tokenizer":
    """The tokenizer that `load_text` makes with the same arguments."""
    return _corpus(path, vocabulary, holdout)[0].tokenizer


def _name(path: Path | str | None) -> str:
    return "chitchat-dataset" if path is None else str(Path(path).expanduser())


@lru_cache(maxsize=1)
def _corpus(path: Path | str | None, vocabulary: int, holdout: float) -> tuple[Corpus, list[tuple[str, np.ndarray]]]:
    """The encoded corpus, and the numbers of the documents in each part."""
    documents = read_documents(path)
    held = max(1, round(holdout * len(documents)))
    if len(documents) < 3:
        raise DataError(
            f"{_name(path)}: expected three documents or lines at least, one for each part, got {len(documents)}"
        )
    check_held_out(len(documents), 2 * held)
    kept_N, held_N = (index_N.numpy() for index_N in split_by_key(len(documents), 2 * held, name=_SPLIT_KEY))
    # the tokenizer learns from the training documents alone: held-out text must not shape the vocabulary
    corpus = encode_corpus(documents, np.sort(kept_N), vocabulary=vocabulary)
    return corpus, [("train", kept_N), ("validation", held_N[:held]), ("test", held_N[held:])]


def _pack(ids_L: np.ndarray, context: int, bytes_V: Tensor, where: str) -> TokenSplit:
    if len(ids_L) <= context:
        raise DataError(
            f"{where}: {len(ids_L)} tokens are not more than the context of {context}; give more text or a smaller "
            "data.context"
        )
    # one token more than the rows hold: the target of the last place is the token after it
    rows = -(-(len(ids_L) - 1) // context)
    stream_L = torch.zeros(rows * context + 1, dtype=torch.long)
    stream_L[: len(ids_L)] = torch.from_numpy(ids_L.astype(np.int64))
    target_L = torch.full((rows * context,), MASKED, dtype=torch.long)
    target_L[: len(ids_L) - 1] = stream_L[1 : len(ids_L)]
    return TokenSplit(x_ND=stream_L[:-1].view(rows, context), y_N=target_L.view(rows, context), bytes_V=bytes_V)


@dataclass(frozen=True, kw_only=True)
class TextData(LimitedData, kind="text"):
    """Text, encoded by a tokenizer that is trained on it, in sequences of equal length."""

    holds: ClassVar[str] = "tokens"
    end: ClassVar[str] = END
    """Special token behind every document: a model that writes it has finished."""

    path: Path | None = None
    """Folder of Cornell Movie-Dialogs, chitchat dataset.json, text file, folder of .txt files, or tar archive of .txt
    and .rst files; none: the package chitchat-dataset."""
    vocabulary: int = 2048
    """Number of entries of the byte-level BPE that is trained on the training documents."""
    context: int = 64
    """Number of tokens in a sequence."""
    holdout: float = 0.05
    """Share of the documents that is held out for validation; as many again are held out for the test part."""
    validation: int = 1024
    """At most this many sequences of the validation part are used."""
    test: int | None = None
    """At most this many sequences of the test part are used; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 < self.context <= MAX_WIDTH, "context", f"2 to {MAX_WIDTH} tokens", self.context)
        require(0 < self.vocabulary <= MAX_WIDTH, "vocabulary", "a positive number", self.vocabulary)
        require(0 < self.holdout < 0.5, "holdout", "a share in (0, 0.5)", self.holdout)
        require_counts(self, "validation", what="a positive number of sequences")
        require_counts(self, "test", what="a positive number of sequences or none")

    @property
    def place(self) -> Path | None:
        """Where the text is read; None: the package chitchat-dataset."""
        return self.path

    def load(self) -> TextSplits:
        """The three parts as packed sequences of tokens."""
        splits = load_text(self.place, context=self.context, vocabulary=self.vocabulary, holdout=self.holdout).limited(
            self.limit
        )
        return replace(splits, validation=splits.validation.head(self.validation), test=splits.test.head(self.test))

    def peek(self) -> DataShape:
        """Sizes of the parts; the corpus is encoded unless the cache has it."""
        shape = self.cut(peek_text(self.place, context=self.context, vocabulary=self.vocabulary, holdout=self.holdout))
        return replace(
            shape,
            num_validation=min(shape.num_validation, self.validation),
            num_test=min(shape.num_test, self.test or shape.num_test),
        )
