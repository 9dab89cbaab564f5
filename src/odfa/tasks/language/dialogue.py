"""Reads documents for language models: conversations with the turns of their speakers, or any text.

A document is one conversation, one text file or a piece of one. Each document is wholly in one part of the data: single
sentences of a conversation in the test part could be guessed from their neighbours in the training part.
"""

import ast
import importlib.util
import itertools
import json
import lzma
import tarfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

from odfa.errors import DataError, MissingExtra

SPEAKERS = ("<|a|>", "<|b|>")
"""Special tokens in front of a turn; <|a|> is whoever speaks first in the conversation."""
Document = tuple[tuple[str, str], ...]
"""Pairs of a special token ("" for none) and the text behind it. Kept apart, as text may spell a special token."""
_CORNELL_FIELDS = "+++$+++"
"""Separates the fields of a line in the Cornell files."""
_LEAST_DOCUMENTS = 40
"""If there are fewer text files than this, they are cut at line ends, so that documents can be held out."""


def read_documents(path: Path | str | None) -> list[Document]:
    """The documents at `path`: a folder of Cornell Movie-Dialogs, a chitchat `dataset.json`, a text file, a folder of
    `.txt` files, or a tar archive, compressed or not, of `.txt` and `.rst` files; None: the conversations of the
    package `chitchat-dataset` (MIT, 7,168 conversations).

    Raises:
        DataError: there is nothing at the path, it is empty, or its content does not have the form of its name.
        MissingExtra: no path is given and the package is not installed.
    """
    place = _chitchat() if path is None else Path(path).expanduser()
    try:
        documents = [document for document in _read(place) if any(text.strip() for _, text in document)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or place}: {error.strerror}") from error
    if not documents:
        raise DataError(f"{place} holds no text; expected conversations or .txt files")
    return documents


def _read(place: Path) -> Iterable[Document]:
    if (place / "movie_lines.txt").is_file():
        return _cornell(place)
    if place.suffix == ".json":
        return _chitchat_documents(place)
    if place.is_file() and _is_archive(place):
        return _archive(place)
    files = sorted(file for file in place.rglob("*.txt") if not file.is_dir()) if place.is_dir() else [place]
    if not files:
        raise DataError(f"{place} holds no .txt files; give a text file or a folder of them as data.path")
    return ((("", piece),) for piece in _pieces([_text(file) for file in files]))


_DAMAGE = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error)


def _is_archive(file: Path) -> bool:
    try:
        return tarfile.is_tarfile(file)
    except _DAMAGE as error:  # compressed, and cut in the first block
        raise _damaged(file, error) from error


def _archive(file: Path) -> list[Document]:
    """The .txt and .rst files of a tar archive, ordered by name; links in it are left out and nothing is unpacked."""
    texts: dict[str, str] = {}
    try:
        # as a stream: going back in a compressed archive would mean decompressing it again
        with tarfile.open(file, "r|*") as archive:
            for member in archive:
                if member.isfile() and member.name.endswith((".txt", ".rst")):
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    texts[member.name] = _decoded(content.read(), f"{file}, {member.name}")
    except _DAMAGE as error:
        raise _damaged(file, error) from error
    return [(("", texts[name]),) for name in sorted(texts)]


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: the archive is damaged ({error}); fetch it again")


def _text(file: Path) -> str:
    """The text of a file, without a byte-order mark."""
    if file.exists() and not file.is_file():
        raise DataError(f"{file}: expected a file of text, this is none")  # reading a pipe would wait for ever
    return _decoded(file.read_bytes(), str(file))


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8 text, got the byte {error.object[error.start]:#04x} at place {error.start}; "
            "convert it"
        ) from error


def _chitchat() -> Path:
    spec = importlib.util.find_spec("chitchat_dataset")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "dialogues need chitchat-dataset, which is missing; pip install chitchat-dataset, or say data.path=FOLDER "
            "(Cornell Movie-Dialogs or .txt files)"
        )
    return Path(spec.origin).with_name("dataset.json")


def _chitchat_documents(file: Path) -> Iterator[Document]:
    try:
        for name, conversation in json.loads(_text(file)).items():
            messages = itertools.chain.from_iterable(conversation["messages"])
            document = turns((message["sender"], message["text"]) for message in messages)
            _check_characters(document, f"{file}, conversation {name!a}")
            yield document
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is not a chitchat dataset.json ({type(error).__name__}: {error})") from error


def _check_characters(document: Document, where: str) -> None:
    """Refuse lone surrogates: JSON can spell them as escapes, but they cannot be encoded as UTF-8."""
    for _, text in document:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = text[error.start]
            raise DataError(f"{where}: {half!a} is half of a character (a lone surrogate); repair the text") from error


def _cornell(folder: Path) -> Iterator[Document]:
    """Conversations of the Cornell Movie-Dialogs Corpus (Danescu-Niculescu-Mizil & Lee, 2011)."""
    # one file has the lines with their speakers, the other, for each conversation, the names of its lines as a literal
    said = {fields[0]: (fields[1], fields[-1]) for fields in _cornell_rows(folder / "movie_lines.txt", 5)}
    file = folder / "movie_conversations.txt"
    for number, fields in enumerate(_cornell_rows(file, 4), 1):
        try:
            yield turns([said[name] for name in ast.literal_eval(fields[-1])])
        except (KeyError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise DataError(
                f"{file}, line {number}: expected names of lines in movie_lines.txt ({type(error).__name__}: {error})"
            ) from error


def _cornell_rows(file: Path, num_fields: int) -> Iterator[list[str]]:
    if file.exists() and not file.is_file():
        raise DataError(f"{file}: expected a file of text, this is none")
    # as bytes, then Latin-1: the corpus is not UTF-8, and its text holds characters that str.splitlines cuts at
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            fields = [
                field.strip() for field in line.removeprefix(BOM_UTF8).decode("iso-8859-1").split(_CORNELL_FIELDS)
            ]
            if len(fields) != num_fields:
                raise DataError(f"{file}, line {number}: expected {num_fields} fields, got {len(fields)}")
            yield fields


def turns(messages: Iterable[tuple[str, str]]) -> Document:
    """One conversation as a document: a speaker token before each turn, one line per message of a turn."""
    # there are two tokens: whoever joins third or later also gets the second one
    document, speakers = list[tuple[str, str]](), dict[str, str]()
    for sender, group in itertools.groupby(messages, key=lambda message: message[0]):
        lines = [" ".join(message.split()) for _, message in group]
        spoken = "\n".join(line for line in lines if line)
        if spoken:
            document.append((speakers.setdefault(sender, SPEAKERS[min(len(speakers), 1)]), spoken))
    return tuple(document)


def _pieces(texts: list[str]) -> Iterator[str]:
    """The texts themselves if there are many; else pieces of whole lines, about equally long."""
    if len(texts) >= _LEAST_DOCUMENTS:
        yield from texts
        return
    # cut at line ends, so that no line of a dialogue or table is in two parts of the data
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
