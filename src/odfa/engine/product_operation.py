"""`Products` in compiled code: an object that it gets as an input, and an operation that asks it.

Imported where blocks with feedback per linear layer are compiled: no other code needs what torch keeps to itself here.
"""

from typing import cast

import torch
from torch import Tensor
from torch._library.opaque_object import register_opaque_type
from torch._opaque_base import OpaqueBase

from odfa.engine.layers import Layout
from odfa.engine.products import Products


class OpaqueProducts(Products, OpaqueBase):
    """Into which torch does not look when it compiles."""


register_opaque_type(OpaqueProducts, typ="reference")


@torch.library.custom_op("odfa::product", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def product(delta_NO: Tensor, matrix: Tensor, layout: str, products: OpaqueProducts) -> Tensor:
    """`Products.in_compiled` as one operation, which torch compiles a call of, and looks no further into."""
    return products.in_compiled(delta_NO, matrix, cast(Layout, layout))


@product.register_fake
def _shape(delta_NO: Tensor, matrix: Tensor, layout: str, _products: OpaqueProducts) -> Tensor:
    return delta_NO.new_empty(delta_NO.shape[0], matrix.shape[1 if layout == "outputs x inputs" else 0])


# what the object keeps changes no value: calls need no order, which torch else assumes of objects
torch.library._register_effectful_op("odfa::product", None)
