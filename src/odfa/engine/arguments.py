"""Arguments of `DFA(...)` of the wrong kind: each is refused with the words to write instead."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from torch import nn

from odfa.arguments import kind as check_kind
from odfa.encode import AbstractEncoder, BitPlanes, Sign, Ternary
from odfa.engine.rules import AbstractRule, Drtp, ForwardGradient, KolenPollack, LowRankHead, RandomFeedback
from odfa.engine.rules.base import UNSTREAMED, Need
from odfa.errors import ConfigError
from odfa.opu import AbstractOpu
from odfa.project import AbstractProjection, Encoded, Gaussian, Hadamard, Identity, Optical, Rademacher
from odfa.settings import kinds_of

SUPPLIED: frozenset[str] = frozenset(get_args(Need))
"""What the engine gives a rule."""
_PLACES: dict[type, str] = {
    AbstractProjection: "projection=",
    AbstractOpu: "projection=odfa.Optical(opu)",
    AbstractRule: "rule=",
    AbstractEncoder: "encoder=",
}
"""Where an argument of this kind belongs."""
_NAMES: dict[str, Mapping[str, type]] = {
    "projection": {made.__name__.lower(): made for made in (Gaussian, Hadamard, Rademacher, Identity, Optical)},
    "rule": {word: kind for word, kind in kinds_of(AbstractRule).items() if kind.cuts},
    "encoder": {"ternary": Ternary, "sign": Sign, "bit_planes": BitPlanes},
}
"""What a word stands for on the command line; from Python one gives the object."""
_BEHIND: frozenset[type] = frozenset({Drtp, ForwardGradient, KolenPollack, LowRankHead})
"""What of this lies in `odfa.engine` and not at the front door."""


def check_arguments(
    *,
    model: object,
    blocks: object,
    projection: object,
    rule: object,
    encoder: object,
    error_at: object,
    branches: object,
    linears: object,
) -> None:
    """Refuse arguments of the wrong kind before anything is looked at.

    Raises:
        ConfigError: the first of them.
    """
    check_kind("model", model, nn.Module, "a module, such as odfa.DFA(Net())")
    kinds = {
        "projection": (projection, AbstractProjection, Gaussian),
        "rule": (rule, AbstractRule, RandomFeedback),
        "encoder": (encoder, AbstractEncoder, Ternary),
    }
    for key, (value, kind, usual) in kinds.items():
        if value is not None:
            check_kind(key, value, kind, _instead(key, value, usual))
    for key, value in (("error_at", error_at), ("branches", branches), ("linears", linears)):
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{key}: expected a name or a list of names, got {type(value).__name__}; write {key}='…'")
    if isinstance(blocks, Iterator) or not (blocks is None or hasattr(blocks, "__iter__")):
        raise ConfigError(
            f"blocks: expected a pattern or a list, got {type(blocks).__name__}; write blocks=[module, …]"
        )


def check_choices(*, recompute: object, unread: object, input_gradient: object) -> None:
    """Refuse words that these arguments do not know.

    Raises:
        ConfigError: the first of them.
    """
    if recompute not in (True, False, "stream"):
        raise ConfigError(f"recompute: expected True, False or 'stream', got {recompute!r}")
    if unread not in ("refuse", "allow") or input_gradient not in ("refuse", "none", "local"):
        raise ConfigError(
            "expected unread='refuse' or 'allow' and input_gradient='refuse', 'none' or 'local', "
            f"got {unread!r} and {input_gradient!r}"
        )


def check_rule(rule: AbstractRule, *, recompute: object, linears: str | Sequence[str]) -> None:
    """Refuse rules that nothing can be attached for.

    Raises:
        ConfigError: the rule lets gradients flow between blocks, needs what DFA, or streaming, does not supply, or hops
            across layers that have feedback of their own.
    """
    if not rule.cuts:
        raise ConfigError(
            f"rule: {rule.name} lets gradients flow between blocks, and DFA is there to cut them; train the model "
            "without DFA, or run it inside dfa.passthrough() of another rule"
        )
    unknown = sorted(rule.needs - SUPPLIED)
    if unknown:
        raise ConfigError(
            f"rule: DFA cannot give a rule the {' or the '.join(unknown)}, which {rule.name} needs; expected some of "
            f"{', '.join(sorted(SUPPLIED))}"
        )
    if rule.crossings and linears:
        raise ConfigError(
            f"rule: {rule.name} with hops takes the true input gradients of blocks, and linears= would replace them by "
            "those of mean weights; expected hops=0 or no linears="
        )
    unkept = sorted(rule.needs & UNSTREAMED)
    if unkept and recompute == "stream":
        raise ConfigError(
            f"rule: {rule.name} needs every {' and '.join(unkept)}, and recompute='stream' keeps none of them; "
            "expected recompute=True or False"
        )


def with_encoder(projection: AbstractProjection, encoder: AbstractEncoder | None) -> AbstractProjection:
    """The projection behind an encoder, if there is one.

    Raises:
        ConfigError: it has an encoder of its own.
    """
    if encoder is None:
        return projection
    if isinstance(projection, (Optical, Encoded)):
        raise ConfigError("this projection has an encoder of its own; give it there: odfa.Optical(opu, encoder=...)")
    return Encoded(projection, encoder)


def _instead(key: str, value: object, usual: type) -> str:
    """What to write in place of `value`."""
    if isinstance(value, type):
        usual = Optical if issubclass(value, AbstractOpu) else value if value in _NAMES[key].values() else usual
    elif isinstance(value, str):
        usual = _NAMES[key].get(value.lower().replace("-", "_"), usual)
    else:
        place = next((place for kind, place in _PLACES.items() if isinstance(value, kind)), None)
        if place is not None:
            return place if place.endswith(")") else f"{place}{type(value).__name__}(…)"
    room = "odfa.engine" if usual in _BEHIND else "odfa"
    return f"{key}={room}.{usual.__name__}({'odfa.Twin()' if usual is Optical else ''})"
