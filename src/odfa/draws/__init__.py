"""Random numbers named by key, row and column: the same on every device."""

from odfa.draws.draws import Draws as Draws
