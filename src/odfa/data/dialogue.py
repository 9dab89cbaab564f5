"""Documents for language models: human conversations with speaker turns, or any text.

A document is one conversation or one stretch of text; documents, never sentences, are kept apart between parts.
"""

import ast
import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from odfa.errors import DataError, MissingExtra

SPEAKERS = ("<|a|>", "<|b|>")
"""Special tokens that open a turn: the one who speaks first in a conversation is a."""
_CORNELL_FIELDS = " +++$+++ "
_LEAST_DOCUMENTS = 40
"""Plain text with fewer files than this is cut at line ends, so that a part of it can be held out."""


def read_documents(path: str | None) -> list[str]:
    """The documents at `path`: a folder of Cornell Movie-Dialogs, a chitchat `dataset.json`, a text file, or a folder
    of `.txt` files; None: the conversations of the package `chitchat-dataset` (MIT, 7,168 conversations).

    Raises:
        DataError: nothing there, empty, or not in the form that its name promises.
        MissingExtra: no path, and the package is not installed.
    """
    place = _chitchat() if path is None else Path(path).expanduser()
    try:
        documents = [text for text in _read(place) if text.strip()]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or place}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: expected UTF-8 text, got the byte {error.object[error.start]:#04x}") from error
    if not documents:
        raise DataError(f"{place} holds no text; expected conversations or .txt files")
    return documents


def _read(place: Path) -> Iterable[str]:
    if (place / "movie_lines.txt").is_file():
        return _cornell(place)
    if place.suffix == ".json":
        return _chitchat_documents(place)
    files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place} holds no .txt files; give a text file or a folder of them as data.path")
    return _pieces([file.read_text(encoding="utf-8") for file in files])


def _chitchat() -> Path:
    spec = importlib.util.find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "dialogues need chitchat-dataset, which is missing; pip install chitchat-dataset, or say data.path=FOLDER "
            "(Cornell Movie-Dialogs or .txt files)"
        )
    return Path(spec.origin).with_name("dataset.json")


def _chitchat_documents(file: Path) -> Iterator[str]:
    try:
        for conversation in json.loads(file.read_text(encoding="utf-8")).values():
            messages = itertools.chain.from_iterable(conversation["messages"])
            yield turns((message["sender"], message["text"]) for message in messages)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a chitchat dataset.json ({type(error).__name__}: {error})") from error


def _cornell(folder: Path) -> Iterator[str]:
    """Conversations of the Cornell Movie-Dialogs Corpus (Danescu-Niculescu-Mizil & Lee, 2011)."""
    said = {fields[0]: (fields[1], fields[-1]) for fields in _cornell_rows(folder / "movie_lines.txt", 5)}
    for fields in _cornell_rows(folder / "movie_conversations.txt", 4):
        try:
            yield turns(said[name] for name in ast.literal_eval(fields[-1]))
        except (KeyError, ValueError, SyntaxError) as error:
            raise DataError(f"{folder}: a conversation names lines that movie_lines.txt lacks ({error})") from error


def _cornell_rows(file: Path, num_fields: int) -> Iterator[list[str]]:
    with file.open(encoding="iso-8859-1", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            fields = [field.strip() for field in line.split(_CORNELL_FIELDS.strip())]
            if len(fields) != num_fields:
                raise DataError(f"{file}, line {number}: expected {num_fields} fields, got {len(fields)}")
            yield fields


def turns(messages: Iterable[tuple[str, str]]) -> str:
    """One conversation as text: a speaker token before each turn, one line per message of a turn."""
    text, speakers = [], dict[str, str]()
    for sender, group in itertools.groupby(messages, key=lambda message: message[0]):
        lines = [" ".join(message.split()) for _, message in group]
        spoken = "\n".join(line for line in lines if line)
        if spoken:
            token = speakers.setdefault(sender, SPEAKERS[min(len(speakers), 1)])
            text.append(token + spoken)
    return "".join(text)


def _pieces(texts: list[str]) -> Iterator[str]:
    """Whole texts if there are many; otherwise stretches of whole lines, about equally long."""
    if len(texts) >= _LEAST_DOCUMENTS:
        yield from texts
        return
    size = sum(map(len, texts)) // _LEAST_DOCUMENTS + 1
    for text in texts:
        piece, length = list[str](), 0
        for line in text.splitlines(keepends=True):
            piece.append(line)
            length += len(line)
            if length >= size:
                yield "".join(piece)
                piece, length = [], 0
        yield "".join(piece)
