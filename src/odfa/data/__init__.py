"""Loaders of real data, offline first: nothing is downloaded, nothing is replaced by synthetic data."""

from odfa.data.augment import augment
from odfa.data.climate import load_climate, peek_climate
from odfa.data.climatebench import load_climatebench, peek_climatebench
from odfa.data.digits import load_digits, peek_digits
from odfa.data.extras import needs, quietly
from odfa.data.fashion import DEFAULT_FOLDER, FASHION_CLASSES, load_fashion, peek_fashion
from odfa.data.fields import FieldSplit, FieldSplits
from odfa.data.idx import read_idx, read_idx_shape
from odfa.data.splits import DataShape, Split, Splits, check_held_out, order, split_by_key
from odfa.data.text import MASKED, TextSplits, TokenSplit, load_text, peek_text, read_tokenizer
from odfa.data.tokens import cache_folder

__all__ = [
    "DEFAULT_FOLDER",
    "FASHION_CLASSES",
    "MASKED",
    "DataShape",
    "FieldSplit",
    "FieldSplits",
    "Split",
    "Splits",
    "TextSplits",
    "TokenSplit",
    "augment",
    "cache_folder",
    "check_held_out",
    "load_climate",
    "load_climatebench",
    "load_digits",
    "load_fashion",
    "load_text",
    "needs",
    "order",
    "peek_climate",
    "peek_climatebench",
    "peek_digits",
    "peek_fashion",
    "peek_text",
    "quietly",
    "read_idx",
    "read_idx_shape",
    "read_tokenizer",
    "split_by_key",
]
