"""What the network's output means, turned into the clean latent x0.

Given the output, the state it was computed from and the state's two factors. It does not know timesteps or guidance.
"""

from __future__ import annotations

from torch import Tensor

from i2vgen_ms.errors import ConfigurationError, nearest

KINDS = ("eps", "v", "x0")


def check(kind: str) -> str:
    """`kind`, or ConfigurationError with the nearest known one."""
    if kind not in KINDS:
        raise ConfigurationError(f"prediction {kind!r} is unknown: {nearest(kind, KINDS)}")
    return kind


def to_x0(kind: str, out: Tensor, x: Tensor, a: float, s: float) -> Tensor:
    """x0 for the state `x = a x0 + s eps`, of x's shape.

    kind: `eps` (Ho et al. 2020), `v = a eps - s x0` (Salimans and Ho 2022, appendix D) or `x0`.
    """
    if kind == "v":
        return a * x - s * out
    if kind == "x0":
        return out
    check(kind)
    if a == 0:
        raise ConfigurationError(
            "a network that predicts eps says nothing about the picture at zero terminal SNR (sigma = infinity); "
            "use a schedule with zero_terminal_snr=false, start at a lower timestep, or predict v"
        )
    return (x - s * out) / a
