"""Compiles the blocks of a run."""

from collections.abc import Container

from torch import nn

from odfa.devices import device_named
from odfa.engine.compiled import USUAL, compile_blocks
from odfa.errors import ConfigError
from odfa.session.config import RunConfig
from odfa.settings import tag_of


def check_compiled(config: RunConfig) -> None:
    """Refuse to compile in forward mode, or without a compiler.

    Raises:
        ConfigError: a rule that needs forward products, or no compiler for the run's device.
    """
    if not config.compile:
        return
    rule = config.rule
    if "forward products" in rule.needs:
        raise ConfigError(
            f"compile=true: expected a rule without forward products, got rule={tag_of(rule)}: compiled code has no "
            "derivative in forward mode; or say compile=false"
        )
    _check_compiler(device_named(config.device).type)


def _check_compiler(kind: str) -> None:
    if kind == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ConfigError(
                "compile=true: expected a C++ compiler, got none; install g++, or say compile=false"
            ) from error
        return
    from torch.utils._triton import has_triton

    if kind != "mps" and not has_triton():
        raise ConfigError(
            f"compile=true: expected triton for device={kind}, got none; install it, or say compile=false"
        )


def compile_all(model: nn.Module, config: RunConfig, *, without: Container[str] = ()) -> None:
    """Compile the network's blocks, as the run says; those inside a group have no feedback, and no handle does it.

    Raises:
        MatchError: a block's forward is not that of its class.
    """
    names = [name for name in config.network.blocks if name not in without]
    if config.compile and names:
        compile_blocks(model, names, USUAL)
