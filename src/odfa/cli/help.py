"""The text of `--help`: a command's arguments, every setting with its default, type and meaning, and an example."""

import ast
import dataclasses
import inspect
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from odfa.arms import ARMS
from odfa.errors import ConfigError
from odfa.settings import Settings, word_of
from odfa.settings.kinds import words_of

_WIDTH = 80
CUT = "a key may be cut to its last part where that is unique"
_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}


@dataclass(frozen=True, kw_only=True)
class Help:
    """The help of a command or an action, beside what argparse knows of its arguments."""

    summary: str
    example: str
    """A command line that works."""
    more: Callable[[list[str]], str] | None = None
    """Further text, from the words that follow the command."""


class Parser(ArgumentParser):
    """A parser that reports a mistake in one line, and whose help ends with the settings and an example."""

    shown: Help | None = None
    _words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Where argparse would print three lines and exit: one line, which `entry.run` prints.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does; the words are kept for the help, which lists the settings of the recipe among them."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """The help of argparse, then the settings and the example."""
        parts = [super().format_help()]
        if self.shown is not None:
            if self.shown.more is not None:
                parts.append(self.shown.more(list(self._words)))
            parts.append(f"example:\n  {self.shown.example}\n")
        return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def explained(parser: ArgumentParser, shown: Help) -> None:
    """Give a subcommand's parser its help and the options that all have."""
    parser.description = shown.summary
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    if isinstance(parser, Parser):
        parser.shown = shown


def add_actions(parser: ArgumentParser, actions: Mapping[str, tuple[Help, Callable[[ArgumentParser], None]]]) -> None:
    """Actions of a subcommand, each with a parser and a help of its own; the chosen one is `arguments.action`."""
    parsers = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    for name, (shown, configure) in actions.items():
        sub = parsers.add_parser(name, help=shown.summary, allow_abbrev=False)
        configure(sub)
        explained(sub, shown)


def add_settings(parser: ArgumentParser) -> None:
    """Words of the form key=value."""
    parser.add_argument("settings", metavar="key=value", nargs="*", default=[], help="settings, see below")


def of_recipe(words: list[str]) -> str:
    """Every setting of the recipe among the words, or how to see them.

    Raises:
        ConfigError: there is no such recipe.
    """
    from odfa import recipes

    name, settings = parts_of(words)
    if name is None:
        return "Every setting of a recipe, with type, default and meaning:\n  odfa train RECIPE --help"
    arm, config = recipes.worded(name, settings)
    told = f"settings of {name}, arm={arm} ({CUT}):"
    meaning = "Rule and projection of a comparison's arm; RULE is a rule below, behind rule: one that projects nothing."
    chosen = _entry(f"arm={arm}  ({' | '.join(ARMS)}, ARM:RULE or rule:RULE)", meaning)
    return "\n\n".join((textwrap.fill(told, _WIDTH), chosen, listing(config)))


def parts_of(words: list[str]) -> tuple[str | None, list[str]]:
    """The first word that is neither an option nor a setting, None where there is none; and the settings."""
    plain = [word for word in words if not word.startswith("-")]
    return next((word for word in plain if "=" not in word), None), [word for word in plain if "=" in word]


def listing(config: Settings, *, without: Container[str] = ()) -> str:
    """Every setting of a tree that may be given, group by group: key=value, type, meaning; kinds before their own.

    Keys of `without` are left out.
    """
    groups: dict[str, list[str]] = {}
    for group, title, entry in _entries(config, "", without):
        groups.setdefault(f"{group}: {title}" if group else title, []).append(entry)
    return "\n\n".join("\n".join([textwrap.fill(title, _WIDTH), *entries]) for title, entries in groups.items())


def _entries(config: Settings, prefix: str, without: Container[str]) -> Iterator[tuple[str, str, str]]:
    """(group, what the group is, entry) of each setting; those of a group stand together."""
    kind, later = type(config), []
    title = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    told, hints = meanings(kind), get_type_hints(kind)
    for entry in dataclasses.fields(config):
        name, value = entry.name, getattr(config, entry.name)
        if entry.metadata.get("fixed") or f"{prefix}{name}" in without:
            continue
        if isinstance(value, Settings):
            inline = entry.metadata.get("inline")
            later.append((value, prefix if inline else f"{prefix}{name}."))
            if inline or not type(value).room:  # no word chooses it, only its own settings can be given
                continue
        head = f"{prefix}{name}={_spelled(value)}  ({_told(hints[name])})"
        yield prefix.rstrip("."), title, _entry(head, told.get(name, ""))
    for part, place in later:
        yield from _entries(part, place, without)


def meanings(kind: type) -> dict[str, str]:
    """Setting → the line under it where it is declared, in a dataclass and what it inherits from."""
    found: dict[str, str] = {}
    for base in kind.__mro__[::-1]:
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for declared, under in zip(body.body, body.body[1:], strict=False):
            if isinstance(declared, ast.AnnAssign) and isinstance(under, ast.Expr):
                found[ast.unparse(declared.target)] = " ".join(str(ast.literal_eval(under.value)).split())
    return found


def _entry(head: str, meaning: str) -> str:
    lines = textwrap.wrap(head, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    under = textwrap.wrap(meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
    return "\n".join([*lines, *under])


def _spelled(value: object) -> str:
    """A value as it is written behind `key=`."""
    if isinstance(value, tuple):
        return ",".join(map(_spelled, value))
    if isinstance(value, Settings):
        return word_of(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _told(hint: Any) -> str:
    """A type in words."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return " | ".join(map(str, parts))
    if get_origin(hint) is tuple:
        count = "" if parts[-1] is Ellipsis else f", {len(parts)} of them"
        return f"{_told(parts[0])}, by commas{count}"
    if get_origin(hint) is Union or type(None) in parts:
        return " or ".join("none" if part is type(None) else _told(part) for part in parts)
    if inspect.isclass(hint) and issubclass(hint, Settings):
        return f"{' | '.join(words_of(hint))}, or package.module:Name" if hint.room else "default"
    return _TYPES.get(hint, str(hint))


def chosen(arguments: Namespace) -> str:
    """The command and its action, as typed."""
    action = getattr(arguments, "action", None)
    return f"{arguments.command.name} {action}" if action else str(arguments.command.name)
