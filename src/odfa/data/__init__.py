"""What loaders of all tasks share: parts of a data set, the order of samples, file formats; nothing is downloaded."""

from odfa.data.augment import augmented
from odfa.data.cache import cache_folder
from odfa.data.extras import needs, quietly
from odfa.data.fields import FieldSplit, FieldSplits
from odfa.data.idx import read_idx, read_idx_shape
from odfa.data.splits import DataShape, Split, Splits, check_held_out, order, split_by_key

__all__ = [
    "DataShape",
    "FieldSplit",
    "FieldSplits",
    "Split",
    "Splits",
    "augmented",
    "cache_folder",
    "check_held_out",
    "needs",
    "order",
    "quietly",
    "read_idx",
    "read_idx_shape",
    "split_by_key",
]
