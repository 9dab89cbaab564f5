"""The targets by name."""

from tests.fuzz.base import Target
from tests.fuzz.targets.checkpoints import Checkpoints
from tests.fuzz.targets.configs import Configs
from tests.fuzz.targets.dialogue import Dialogue
from tests.fuzz.targets.folders import Folders
from tests.fuzz.targets.idx import Idx
from tests.fuzz.targets.netcdf import NetCdf
from tests.fuzz.targets.opus import Opus
from tests.fuzz.targets.overrides import Overrides
from tests.fuzz.targets.plans import Plans
from tests.fuzz.targets.text import Text
from tests.fuzz.targets.words import Words

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Words(),
        Overrides(),
        Configs(),
        Folders(),
        Checkpoints(),
        Idx(),
        NetCdf(),
        Text(),
        Dialogue(),
        Plans(),
        Opus(),
    )
}
