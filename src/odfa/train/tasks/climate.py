"""Fields over the globe: what a Transformer projects, patch by patch."""

from torch import Tensor, nn

from odfa import data
from odfa.train.config import AnyData, ClimateConfig
from odfa.train.tasks.base import AbstractTask, Metric, evaluating, limited, predictions


class Climate(AbstractTask):
    """Mean square error weighted by area, compared by its root in kelvin."""

    metric = Metric(name="rmse_K", better="lower")

    def load(self, config: AnyData) -> data.FieldSplits:
        """The three parts, standardised."""
        assert isinstance(config, ClimateConfig)
        return data.load_climate(config.path, held_out=config.held_out).limited(config.limit)

    def peek(self, config: AnyData) -> data.DataShape:
        """Sizes."""
        assert isinstance(config, ClimateConfig)
        return limited(data.peek_climate(config.path, held_out=config.held_out), config.limit)

    def references(self, config: AnyData) -> dict[str, float]:
        """Persistence, trend and pattern scaling."""
        return self.load(config).references

    def loss(self, model: nn.Module, batch: data.Split) -> Tensor:
        """mean of w (ŷ - y)², a scalar."""
        assert isinstance(batch, data.FieldSplit)
        error_NG = model(batch.x_ND) - batch.y_N
        loss: Tensor = (error_NG.square() * batch.weight_G).mean()
        return loss

    def evaluate(self, model: nn.Module, part: data.Split) -> dict[str, float]:
        """Loss in standardised units, and the error in kelvin."""
        assert isinstance(part, data.FieldSplit)
        with evaluating(model):
            error = part.error(predictions(model, part.x_ND))
        return {"loss": (error / part.unit) ** 2, self.metric.name: error}
