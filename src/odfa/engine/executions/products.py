"""Directional derivatives of the outputs, by a second run of the model in forward mode."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from odfa.engine.executions.again import Pass
from odfa.engine.executions.base import Running
from odfa.engine.rules import AbstractRule
from odfa.engine.tensors import first_tensor, map_tensors
from odfa.engine.wirings import AbstractWiring
from odfa.error import Tap, error_rows
from odfa.errors import MatchError


class _Arrived(BaseException):
    """The tap has been read; what lies behind it need not run again."""

    def __init__(self, tangent: Tensor) -> None:
        super().__init__()
        self.tangent = tangent


class ForwardProducts:
    """t = sum_l J_l u_l for directions u_l at the outputs of all blocks, J_l = dy/dh_l the whole derivative.

    The derivative passes everything between the block and the tap, later blocks included; there is no backward pass in
    it. It costs one run of the model in forward mode.
    """

    records: ClassVar[bool] = False
    """Blocks do not learn in this run: autograd is off."""

    def __init__(
        self, handle: Running, wiring: AbstractWiring, tap: Tap, before: Pass, exact: Callable[[], Any]
    ) -> None:
        """For the pass with this `wiring`; `exact` gives a context in which every layer has its own derivative."""
        self.wiring = wiring
        self._handle, self._tap, self._pass, self._exact = handle, tap, before, exact
        self._directions: list[Tensor] = []

    def __call__(self, directions: Sequence[Tensor]) -> Tensor:
        """t_ND, one row per row of the error, for one direction of its call's shape for each call of a block.

        Raises:
            MatchError: something between the blocks and the tap has no derivative in forward mode.
        """
        _prepare()
        self._directions = list(directions)
        input_side = self._tap.side == "input"
        register = self._tap.module.register_forward_pre_hook if input_side else self._tap.module.register_forward_hook
        reading = register(self._read_input if input_side else self._read_output)  # type: ignore[arg-type]
        self._handle.second_run = self
        try:
            with ExitStack() as around:
                around.enter_context(torch.no_grad())
                around.enter_context(forward_ad.dual_level())
                around.enter_context(sdpa_kernel(SDPBackend.MATH))  # the only one with a derivative in forward mode
                around.enter_context(self._exact())
                around.enter_context(self._pass.as_before())
                self._handle.model(*self._pass.args, **self._pass.kwargs)
        except _Arrived as arrived:
            return error_rows(arrived.tangent, str(self._tap)).e_ND
        except (RuntimeError, NotImplementedError) as error:
            raise MatchError(
                f"no derivative in forward mode: {' '.join(str(error).split())[:200]}; use rule=kolen_pollack, or "
                "another rule that needs no forward products"
            ) from error
        finally:
            reading.remove()
            self._directions, self._handle.second_run = [], None
        raise MatchError(f"{self._tap} did not run again in forward mode; use a model that runs the same way twice")

    def learn(self, output: Any, *, shared: bool) -> Any:
        """Add the direction of the block that returned `output` to what comes from earlier blocks."""
        main = first_tensor(output)
        assert main is not None  # it had one in the first run
        value, carried = forward_ad.unpack_dual(main)  # type: ignore[no-untyped-call]
        direction = self._directions.pop(0).to(value)
        tangent = direction if carried is None else direction + carried
        moved = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
        return map_tensors(output, lambda t: moved if t is main else t)

    def _read_output(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._read(output)

    def _read_input(self, _module: nn.Module, args: Any) -> None:
        self._read(args)

    def _read(self, value: Any) -> None:
        if self._directions:
            return  # a head that runs between blocks, too
        main = first_tensor(value)
        assert main is not None
        value, tangent = forward_ad.unpack_dual(main)  # type: ignore[no-untyped-call]
        raise _Arrived(torch.zeros_like(value) if tangent is None else tangent.clone())


@cache
def _prepare() -> None:
    """Torch compiles parts of its forward mode when it is first used, and warns of its own way to do so."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))  # type: ignore[no-untyped-call]


def check_one_tap(rule: AbstractRule, taps: Sequence[Tap]) -> None:
    """Derivatives are those of one output.

    Raises:
        MatchError: a rule that needs forward products, and several places where the error is read.
    """
    if len(taps) > 1 and "forward products" in rule.needs:
        raise MatchError(
            f"rule {rule.name} needs forward products of one output, got error_at={[str(tap) for tap in taps]}; name "
            "one place, or use RandomFeedback()"
        )
