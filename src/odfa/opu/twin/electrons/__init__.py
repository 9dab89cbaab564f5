"""Photo-electrons of pixels with a known mean, and the counts that a camera makes of them, on every device alike."""

from odfa.opu.twin.electrons.counting import count as count
from odfa.opu.twin.electrons.reading import Reading as Reading
