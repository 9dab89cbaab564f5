"""Rows of zeros (padding, masked tokens) take no light and no work; shapes and keys that make sense."""

from collections.abc import Callable

from torch import Tensor

from odfa.errors import ConfigError


def project_lit(e_ND: Tensor, num_outputs: int, project: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `project` to the rows of `e_ND` that are not all zero; the others give zeros."""
    lit_N = e_ND.any(dim=1)
    if lit_N.all() and len(lit_N):
        return project(e_ND)
    p_NM = e_ND.new_zeros((len(e_ND), num_outputs))
    if lit_N.any():
        p_NM[lit_N] = project(e_ND[lit_N])
    return p_NM


def check_shape(num_inputs: int, num_outputs: int) -> None:
    """Refuse shapes without inputs or outputs.

    Raises:
        ConfigError: a width is not a positive integer.
    """
    for name, width in (("num_inputs", num_inputs), ("num_outputs", num_outputs)):
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigError(f"{name} must be a positive integer, got {width!r}")


def check_seed(seed: int) -> None:
    """Refuse keys that are not integers.

    Raises:
        ConfigError: `seed` is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed must be an integer, got {seed!r}")


def check_kind(key: str, value: object, kind: type, write: str) -> None:
    """Refuse an argument that is no `kind`, such as a class in place of an object.

    Args:
        write: what to write instead.

    Raises:
        ConfigError: it is of another kind.
    """
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"{type(value).__name__} {value!r:.60}"
        expected = kind.__name__.removeprefix("Abstract").lower()
        article = "an" if expected[0] in "aeiou" else "a"
        raise ConfigError(f"{key}: expected {article} {expected}, got {' '.join(got.split())}; write {write}")
