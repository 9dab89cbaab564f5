"""Settings: frozen classes, each beside what it configures; their trees as objects, as `key=value` and as JSON."""

from odfa.settings.base import FIXED, INLINE, Settings
from odfa.settings.kinds import load, named, of_slot, registered_as, tag_of, word_of
from odfa.settings.override import apply, resolved
from odfa.settings.refusals import (
    MAX_COUNT,
    MAX_LAYERS,
    MAX_WIDTH,
    SEEDS,
    SEEDS_TOLD,
    SettingError,
    require,
    require_counts,
    shown,
)
from odfa.settings.rooms import kinds_of
from odfa.settings.tree import changes, digest, from_dict, keys, to_dict, unread

__all__ = [
    "FIXED",
    "INLINE",
    "MAX_COUNT",
    "MAX_LAYERS",
    "MAX_WIDTH",
    "SEEDS",
    "SEEDS_TOLD",
    "SettingError",
    "Settings",
    "apply",
    "changes",
    "digest",
    "from_dict",
    "keys",
    "kinds_of",
    "load",
    "named",
    "of_slot",
    "registered_as",
    "require",
    "require_counts",
    "resolved",
    "shown",
    "tag_of",
    "to_dict",
    "unread",
    "word_of",
]
