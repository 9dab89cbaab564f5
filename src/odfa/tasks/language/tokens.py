"""Byte-level BPE: trained once per corpus and vocabulary, then kept in the user's cache with the encoded documents."""

import hashlib
import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odfa.data.cache import cache_folder
from odfa.data.extras import needs
from odfa.errors import DataError
from odfa.tasks.language.dialogue import SPEAKERS, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = "<|end|>"
"""Special token after every document."""
SPECIALS = (END, *SPEAKERS)
LEAST_VOCABULARY = 256 + len(SPECIALS)
"""An entry for each byte, so that any text can be encoded, and the special tokens."""
_FORM = "2"
"""Version of the encoding, part of the cache's key; it changes whenever this file encodes differently."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents as token numbers: document i is `ids[start[i]:start[i + 1]]`, and its last token is END."""

    tokenizer: "Tokenizer"
    ids: np.ndarray
    start: np.ndarray

    def join(self, documents: np.ndarray) -> np.ndarray:
        """The tokens of these documents in the given order, joined."""
        return np.concatenate([self.ids[self.start[i] : self.start[i + 1]] for i in documents])


def encode_corpus(documents: list[Document], learn_from: np.ndarray, *, vocabulary: int) -> Corpus:
    """Train a byte-level BPE of `vocabulary` entries on the documents `learn_from`, and encode all of them.

    The result is kept in `cache_folder()` under a key of the texts, `learn_from`, `vocabulary` and the version of
    tokenizers; an equal call reads it from there.

    Raises:
        DataError: the texts are too few for so many entries, or `vocabulary` is smaller than `LEAST_VOCABULARY`.
        MissingExtra: tokenizers is not installed.
    """
    if vocabulary < LEAST_VOCABULARY:
        raise DataError(
            f"data.vocabulary: expected at least {LEAST_VOCABULARY} (256 bytes and {len(SPECIALS)} special tokens), "
            f"got {vocabulary}"
        )
    with needs("tokenizers", "language models"):
        import tokenizers

        version = importlib.metadata.version("tokenizers")
    # repr spells the structure of a document unambiguously, which joined texts would not
    texts = hashlib.sha256()
    for document in documents:
        texts.update(repr(document).encode())
    key = f"{_FORM} {version} {vocabulary} {texts.hexdigest()} {hashlib.sha256(learn_from.tobytes()).hexdigest()}"
    kept = cache_folder() / f"bpe-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if (kept / "tokenizer.json").is_file():
        return _load(kept, tokenizers, len(documents))
    corpus = _encode(
        documents, train_bpe([text for i in learn_from for _, text in documents[i]], vocabulary=vocabulary)
    )
    _keep(corpus, kept)
    return corpus


def train_bpe(texts: list[str], *, vocabulary: int) -> "Tokenizer":
    """A byte-level BPE tokenizer of exactly `vocabulary` entries.

    Raises:
        DataError: the texts have fewer different pieces than that.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # the alphabet holds all 256 bytes, also those that the texts do not have: any later text can be encoded
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # the trainer stops without an error when it finds no more pairs to merge
    found = tokenizer.get_vocab_size()
    if found != vocabulary:
        raise DataError(
            f"data.vocabulary: the corpus gives {found:,} different tokens, expected {vocabulary:,}; give more text or "
            f"say data.vocabulary={found}"
        )
    return tokenizer


def token_bytes(tokenizer: "Tokenizer") -> np.ndarray:
    """Number of bytes of UTF-8 that each token stands for; a special token counts as one, like a line break."""
    # a byte-level BPE spells each byte as one character, so the length of a token is its number of bytes
    numbers = tokenizer.get_vocab()
    return np.array([1 if token in SPECIALS else len(token) for token in sorted(numbers, key=numbers.__getitem__)])


def _encode(documents: list[Document], tokenizer: "Tokenizer") -> Corpus:
    tokenizer.encode_special_tokens = True  # in spite of its name: text that spells a special token stays text
    encodings = tokenizer.encode_batch([text for document in documents for _, text in document])
    tokenizer.encode_special_tokens = False
    encoded = (np.array(encoding.ids, np.int32) for encoding in encodings)
    alone = {token: np.array([tokenizer.token_to_id(token)], np.int32) for token in SPECIALS}
    parts, start = list[np.ndarray](), [0]
    for document in documents:
        stream = [part for token, _ in document for part in (alone.get(token, alone[END][:0]), next(encoded))]
        parts += [*stream, alone[END]]
        start.append(start[-1] + sum(map(len, stream)) + 1)
    return Corpus(tokenizer=tokenizer, ids=np.concatenate(parts), start=np.array(start, np.int64))


def _keep(corpus: Corpus, kept: Path) -> None:
    """Write the corpus into a temporary folder beside its place and rename it: a folder of the final name is whole."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f".{kept.name}."))
        try:
            np.save(partial / "ids.npy", corpus.ids)
            np.save(partial / "start.npy", corpus.start)
            corpus.tokenizer.save(str(partial / "tokenizer.json"))
            partial.rename(kept)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if not kept.is_dir():  # else another process has kept the same corpus first, and nothing is lost
            raise DataError(
                f"cannot keep the tokens in {kept.parent}: {error.strerror}; set XDG_CACHE_HOME to a folder with room"
            ) from error


def _load(kept: Path, tokenizers: Any, num_documents: int) -> Corpus:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(kept / "tokenizer.json"))
        ids, start = np.load(kept / "ids.npy"), np.load(kept / "start.npy")
        if ids.dtype != np.int32 or len(start) != num_documents + 1 or start[0] != 0 or start[-1] != len(ids):
            raise ValueError(f"{len(ids)} tokens and {len(start)} places do not make {num_documents} documents")
        if (np.diff(start) < 1).any() or ids.min() < 0 or ids.max() >= tokenizer.get_vocab_size():
            raise ValueError("a token or a place is out of range")
    except Exception as error:  # tokenizers raises plain Exception
        raise DataError(f"{kept} is damaged ({error}); remove it and it will be made anew") from error
    return Corpus(tokenizer=tokenizer, ids=ids, start=start)
