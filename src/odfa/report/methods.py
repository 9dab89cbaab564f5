"""What each method's row says in tables: the rule that ran, and what part of the learning is electronic."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from odfa.errors import ConfigError
from odfa.train import RunConfig, correction_rank
from odfa.train.config import Method, RuleName

METHODS: tuple[Method, ...] = get_args(Method)
RULES: tuple[RuleName, ...] = get_args(RuleName)
_RULED = ("dfa", "tdfa", "odfa", "identity")
_CONTROLS = {"bp": "backprop", "shallow": "shallow", "identity": "identity"}
_RATE_FACTORS = {"shallow": 30.0}
"""Centre of a method's grid of learning rates, over the recipe's rate. A head alone takes larger steps than a network:
on digits its validation accuracy is 86 % at 1e-3, 96 % at 3e-2 and 97.5 % at 9e-2, where backpropagation is best at
9e-3. A control that is held back by its learning rate would flatter every other method."""
_PROJECTION = {
    "bp": "all: true gradient, no projection",
    "shallow": "all: true gradient of the head, blocks do not learn",
    "identity": "all: exact gradient for the last block, whose error is copied unprojected to the others",
    "dfa": "all: digital projection",
    "tdfa": "all: digital projection of the ternary error",
    "odfa": "all but the projection, which is optical",
}


def arms(config: RunConfig, words: Sequence[str]) -> dict[str, RunConfig]:
    """Word → config: each word is a method, or METHOD:RULE for a rule that is not the recipe's own.

    Raises:
        ConfigError: a name that is not a method or a rule, a rule for a method that has none, a repetition, or no word.
    """
    if not words:
        raise ConfigError(f"methods: expected some of {', '.join(METHODS)}, got none")
    if len(set(words)) < len(words):
        raise ConfigError(f"methods: expected each of them once, got {','.join(words)}")
    return {word: _arm(config, *word.partition(":")) for word in words}


def _arm(config: RunConfig, name: str, colon: str, rule_name: str) -> RunConfig:
    method = next((known for known in METHODS if known == name), None)
    if method is None:
        raise ConfigError(f"methods: expected some of {', '.join(METHODS)}, got {name!r}")
    if not colon:
        measured = config.align_every if method in _RULED else None
        return replace(config, method=method, align_every=measured)
    rule = next((known for known in RULES if known == rule_name), None)
    if rule is None or method in _CONTROLS:
        ruled = [known for known in METHODS if known not in _CONTROLS]
        raise ConfigError(
            f"methods: expected METHOD:RULE with one of {', '.join(ruled)} and one of {', '.join(RULES)}, got "
            f"{name}:{rule_name}"
        )
    return replace(config, method=method, rule=rule)


def rate_centre(config: RunConfig) -> float:
    """Centre of the grid of learning rates from which the run's method chooses."""
    return config.optimizer.learning_rate * _RATE_FACTORS.get(config.method, 1.0)


def rule_of(config: RunConfig) -> str:
    """The rule that really ran; controls are rules too."""
    return _CONTROLS.get(config.method, config.rule)


def electronic_part(config: RunConfig) -> str:
    """What of the learning is electronic."""
    part = _PROJECTION[config.method]
    if config.method in _CONTROLS or config.rule == "random":
        return part
    if config.rule == "exact":
        return "all: exact product of the read-out and the error, a bound"
    feedback = config.feedback
    rank = correction_rank(config, config.network.num_outputs(config.data.peek()))
    correction = f"correction of rank {rank} every {feedback.every} steps"
    if rank == 0:  # refused by the electronic rule, which would be left with nothing
        return f"{part}, no electronic correction (rank 0)"
    return f"all: {correction} alone" if config.rule == "electronic" else f"{part}, with an electronic {correction}"
