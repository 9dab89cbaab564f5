"""Loaders of real data, offline first: nothing is downloaded, nothing is replaced by synthetic data."""

from odfa.data.digits import load_digits, peek_digits
from odfa.data.extras import needs
from odfa.data.fashion import DEFAULT_FOLDER, load_fashion, peek_fashion
from odfa.data.idx import read_idx, read_idx_shape
from odfa.data.splits import DataShape, Split, Splits, check_held_out, order, split_by_key

__all__ = [
    "DEFAULT_FOLDER",
    "DataShape",
    "Split",
    "Splits",
    "check_held_out",
    "load_digits",
    "load_fashion",
    "needs",
    "order",
    "peek_digits",
    "peek_fashion",
    "read_idx",
    "read_idx_shape",
    "split_by_key",
]
