"""A digital projection of the encoded error: the same codes that an OPU would be shown, without an OPU."""

import copy
from collections.abc import Mapping
from typing import Self

from torch import Tensor

from odfa import arguments
from odfa.encode.base import AbstractEncoder
from odfa.errors import ConfigError
from odfa.flow import Light, Share
from odfa.project.base import AbstractProjection
from odfa.project.rows import project_lit
from odfa.saved import State, check_state
from odfa.sparse import is_few


class Encoded(AbstractProjection):
    """p_NM = t_ND B_DM where t is what the encoder makes of e: tells the loss by encoding from that by the optics.

    >>> Encoded(Gaussian(), Ternary()).shaped(10, 3).project(torch.eye(10)).shape
    torch.Size([10, 3])
    """

    def __init__(self, projection: AbstractProjection, encoder: AbstractEncoder) -> None:
        """Put `encoder` before `projection`.

        Raises:
            ConfigError: an argument is of the wrong kind, or the encoder transforms what is copied unprojected.
        """
        arguments.kind("projection", projection, AbstractProjection, "odfa.project.Encoded(odfa.Gaussian(), encoder)")
        arguments.kind("encoder", encoder, AbstractEncoder, "odfa.project.Encoded(projection, odfa.Ternary())")
        if projection.isometric and encoder.transforms:
            raise ConfigError(
                f"{encoder.name} transforms the error, and {projection.identity} would copy what it makes of it; use "
                "another encoder, or a projection by a random matrix"
            )
        self._projection, self._encoder = projection, encoder
        self.num_inputs, self.num_outputs = projection.num_inputs, projection.num_outputs
        self.isometric = projection.isometric
        self._density: Share | None = None

    def __repr__(self) -> str:
        return self.identity

    def shaped(self, num_inputs: int, num_outputs: int) -> Self:
        """The same encoder on the shaped projection; the encoder's random state is shared.

        Raises:
            ConfigError: the projection cannot take this shape.
            Incompatible: the OPU behind the projection cannot serve this shape.
        """
        shaped = copy.copy(self)
        shaped._projection = self._projection.shaped(self._encoder.width(num_inputs), num_outputs)
        shaped.num_inputs, shaped.num_outputs = num_inputs, num_outputs
        return shaped

    @property
    def identity(self) -> str:
        """The projection's identity and the encoder's name."""
        return f"encoded({self._projection.identity}, {self._encoder.name})"

    @property
    def is_matrix(self) -> bool:
        """False: rows are encoded first."""
        return False

    def matrix(self) -> Tensor:
        """B_DM of the inner projection, as rows before the encoder's transform meet it, if it has one; the code itself
        is not linear and not part of the matrix."""
        matrix_EM = self._projection.matrix()
        return matrix_EM if self.num_inputs is None else self._encoder.folded(matrix_EM, self.num_inputs)

    def _project(self, e_ND: Tensor) -> Tensor:
        assert self.num_outputs is not None
        return project_lit(e_ND, self.num_outputs, self._project_lit)

    def _project_lit(self, e_ND: Tensor) -> Tensor:
        if self._encoder.lights_one and is_few(self._encoder.patterns_per_sample, e_ND.shape[1]):
            entries = self._encoder.entries(e_ND)
            self._density = entries.density_there
            return self._projection.project_entries(entries)
        frames = self._encoder.encode(e_ND)
        self._density = frames.density_there
        return self._projection.project(frames.values())

    def cost(self, num_vectors: int) -> Light:
        """What the inner projection costs."""
        return self._projection.cost(num_vectors)

    @property
    def spent(self) -> Light:
        """What the inner projection has spent."""
        return self._projection.spent

    @property
    def diagnostics(self) -> dict[str, float]:
        """Density of non-zeros in the last call, and the inner projection's figures."""
        return {name: float(value) for name, value in self.diagnostics_there.items()}

    @property
    def diagnostics_there(self) -> Mapping[str, float | Share]:
        """`diagnostics`, of which nothing has been waited for."""
        own = {} if self._density is None else {"density": self._density}
        return {**self._projection.diagnostics_there, **own}

    def close(self) -> None:
        """Close what the inner projection holds."""
        self._projection.close()

    def state_dict(self) -> State:
        """The encoder's random state and the inner projection's."""
        return {"encoder": self._encoder.state_dict(), "projection": self._projection.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned.

        Raises:
            CheckpointError: this is not the state of an encoder and a projection.
        """
        check_state(state, {"encoder": {str: object}, "projection": {str: object}}, "projection")
        self._encoder.load_state_dict(state["encoder"])
        self._projection.load_state_dict(state["projection"])
