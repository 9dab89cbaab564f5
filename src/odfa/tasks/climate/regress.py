"""Fields over the globe: what a Transformer projects, patch by patch."""

from abc import abstractmethod

from torch import Tensor, nn

from odfa import data
from odfa.train.config import AnyData, ClimateBenchConfig, ClimateConfig
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited, predictions


class AbstractFields(AbstractTask):
    """Mean square error weighted by area, compared by its root in the field's own unit."""

    @abstractmethod
    def load(self, config: AnyData) -> data.FieldSplits:
        """The three parts, standardised."""

    def references(self, config: AnyData) -> dict[str, float]:
        """What the data set's simple predictions reach."""
        return self.load(config).references

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """mean of w (ŷ - y)², a scalar."""
        assert isinstance(batch, data.FieldSplit)
        error_NG = model(batch.x_ND) - batch.y_N
        loss: Tensor = (error_NG.square() * batch.weight_G).mean()
        return loss

    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss in standardised units, and the error in the field's unit."""
        assert isinstance(part, data.FieldSplit)
        with evaluating(model):
            error = part.error(predictions(model, part.x_ND))
        return {"loss": (error / part.unit) ** 2, self.metric.name: error}


class Climate(AbstractFields):
    """Later surface temperature from past decades, in kelvin."""

    metric = Metric(name="rmse_K", better="lower")

    def load(self, config: AnyData) -> data.FieldSplits:
        """The three parts, standardised."""
        assert isinstance(config, ClimateConfig)
        return data.load_climate(config.path, held_out=config.held_out).limited(config.limit)

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes."""
        assert isinstance(config, ClimateConfig)
        return limited(data.peek_climate(config.path, held_out=config.held_out), config.limit)


class ClimateBench(AbstractFields):
    """A year's climate from its emissions, in the unit of the variable."""

    metric = Metric(name="rmse", better="lower")

    def load(self, config: AnyData) -> data.FieldSplits:
        """The three parts, standardised."""
        assert isinstance(config, ClimateBenchConfig)
        return data.load_climatebench(config.path, variable=config.variable, test=config.scenario).limited(config.limit)

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes."""
        assert isinstance(config, ClimateBenchConfig)
        return limited(
            data.peek_climatebench(config.path, variable=config.variable, test=config.scenario), config.limit
        )
