"""One line holds the settings of a comparison and those of its runs, and no name means both."""

import dataclasses

import pytest

from odfa import recipes, settings
from odfa.cli.arm_words import CompareWords
from odfa.lab import CompareSettings
from odfa.settings import kinds_of
from odfa.settings.tree import hints_of

OWN = {entry.name for entry in dataclasses.fields(CompareSettings)}


def _tree(name: str = "digits_tiny") -> CompareWords:
    return CompareWords(run=recipes.whole(name))


def test_each_word_goes_where_it_belongs():
    words = ["arms=bp,odfa", "epochs=2", "seeds=1", "optimizer.learning_rate=0.1", "projection=optical", "opu=ideal"]
    tree = settings.apply(_tree(), words)
    assert (tree.arms, tree.seeds) == (("bp", "odfa"), 1)
    assert tree.run == settings.apply(recipes.whole("digits_tiny"), [w for w in words if w.split("=")[0] not in OWN])
    assert tree.run != recipes.whole("digits_tiny")


@pytest.mark.parametrize("name", list(recipes.listed()))
def test_no_setting_of_a_run_bears_the_name_of_one_of_the_comparison(name):
    known = settings.keys(_tree(name))
    assert set(known) == OWN | set(settings.keys(recipes.whole(name)))
    assert [key for key in known if key.rpartition(".")[2] in OWN and key not in OWN] == []
    slots = {place.slot for place in known.values() if place.slot is not None}
    kinds = [kind for slot in slots for kind in kinds_of(slot).values()]
    assert [kind.__name__ for kind in kinds if OWN & set(hints_of(kind))] == []


def test_help_lists_both_and_not_what_is_refused(odfa, capsys):
    with pytest.raises(SystemExit):
        odfa("compare", "digits_tiny", "batch_size=7", "--help")
    text = capsys.readouterr().out
    for entry in ("arms=bp,shallow,dfa,odfa", "try_steps=none", "batch_size=7", "optimizer.learning_rate="):
        assert f"\n  {entry}" in text
    assert "\n  seed=" not in text
    assert "\n  run=" not in text
