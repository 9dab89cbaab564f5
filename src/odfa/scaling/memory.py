"""Bytes that a step keeps, how much of it fits the device, and what moving the rest over the link costs."""

from dataclasses import dataclass

from odfa.scaling.method import Precision
from odfa.scaling.walk import Walk


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes of one device at the fullest moment of a step."""

    weights: float
    states: float
    """Bytes of the optimiser's states."""
    gradients: float
    activations: float
    """Most that is alive between the beginning of a step and its end, gradients aside."""
    projection: float = 0.0
    """The stored matrix of a digital projection."""

    @property
    def total(self) -> float:
        """Bytes at that moment: the sum of all parts."""
        return self.weights + self.states + self.gradients + self.activations + self.projection


def need(walk: Walk, precision: Precision, devices: int = 1, *, fused: bool = False, projection: float = 0.0) -> Need:
    """What each of `devices` equal shares of the model keeps.

    peak = weights + states + max(peak of the steps, gradients), the peak as the walk saw it, where gradients grow
    while activations go. Fused updates keep one gradient at a time.
    """
    # they are not added: activations are freed as gradients come, and the walk saw their sum at each kernel
    gradients = precision.gradient * (walk.largest if fused else walk.updated)
    fullest = max(walk.peak, gradients)
    return Need(
        weights=precision.weight * walk.parameters / devices,
        states=precision.state * walk.updated / devices,
        gradients=gradients / devices,
        activations=(fullest - gradients) / devices,
        projection=projection,
    )


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that cross the link in a step because they do not fit the device, per device."""

    link_bytes: float = 0.0
    host_bytes: float = 0.0
    """Read and written by the host, which updates what it holds."""
    activations: float = 0.0
    """Part of `link_bytes` that are activations."""
    host_share: float = 0.0
    """Share of the optimiser's work that the host does."""
    fits: bool = True
    """False: even one block's share is too large."""


def offload(needed: Need, precision: Precision, capacity: float, depth: float) -> Traffic:
    """Move as little as fits the rest into `capacity`: first the optimiser's states, then activations, then weights.

    That order frees most bytes per byte moved. States: gradients go out and weights come back, once a step, and the
    host updates (ZeRO-Offload, arXiv 2101.06840). Activations: out and in. Weights: in for the forward and in for the
    backward pass, and not after the update, since they live with the host; one block's are always there.
    """
    # each kind is moved only as far as moving the kinds before it did not free enough
    excess = needed.total - capacity
    if excess <= 0:
        return Traffic()
    per_state = (precision.gradient + precision.weight) / precision.state
    states = min(excess, needed.states)
    moved, host = states * per_state, 2 * states
    excess -= states
    activations = min(max(0.0, excess), needed.activations)
    excess -= activations
    # weights and gradients of a block move together, and one block's have to be there while it runs
    rest = needed.weights + needed.gradients
    weights = min(max(0.0, excess), rest * (1 - 1 / max(1.0, depth)))
    share = weights / rest if rest else 0.0
    excess -= weights
    return Traffic(
        link_bytes=moved + 2 * activations + (1 if states else 2) * share * needed.weights,
        host_bytes=host,
        activations=2 * activations,
        host_share=states / needed.states if needed.states else 0.0,
        fits=excess <= 0,
    )
