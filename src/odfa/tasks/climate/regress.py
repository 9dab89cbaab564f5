"""Regression of fields on a latitude-longitude grid."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from odfa.data import FieldSplit, FieldSplits, Split
from odfa.errors import DataError
from odfa.settings import require
from odfa.tasks.base import AbstractData, AbstractTask, Metric, evaluating, predictions


@dataclass(frozen=True, kw_only=True)
class Regress(AbstractTask, kind="regress"):
    """Mean square error weighted by area; runs are compared by its root, in the unit of the field."""

    takes: ClassVar[frozenset[str]] = frozenset({"fields"})
    asks: ClassVar[str] = "fields"
    of_classes: ClassVar[bool] = False
    samples: ClassVar[str] = "maps"

    unit: str = ""
    """Unit of the field, which is put behind the metric's name (rmse_K); empty: the unit of the files."""

    def __post_init__(self) -> None:
        require(not self.unit or self.unit.isidentifier(), "unit", "letters and digits, or nothing", self.unit)

    @property
    def metric(self) -> Metric:
        """Root of the mean square error, in the unit of the field."""
        return Metric(name=f"rmse_{self.unit}" if self.unit else "rmse", better="lower")

    def references(self, data: AbstractData) -> dict[str, float]:
        """Test error of the data set's simple predictions, such as climatology."""
        splits = data.load()
        return splits.references if isinstance(splits, FieldSplits) else {}

    def loss(self, model: nn.Module, batch: Split) -> Tensor:
        """Mean of w (ŷ - y)² over samples and places, a scalar; w are area weights of mean one."""
        part = _fields(batch)
        error_NG = model(part.x_ND) - part.y_N
        loss: Tensor = (error_NG.square() * part.weight_G).mean()
        return loss

    def evaluate(self, model: nn.Module, part: Split) -> dict[str, float]:
        """Loss in standardised units, and the error in the field's unit."""
        fields = _fields(part)
        with evaluating(model):
            error = fields.error(predictions(model, fields.x_ND))
        return {"loss": (error / fields.unit) ** 2, self.metric.name: error}


def _fields(part: Split) -> FieldSplit:
    if not isinstance(part, FieldSplit):
        raise DataError(f"task=regress: expected parts with fields (odfa.data.FieldSplit), got {type(part).__name__}")
    return part
