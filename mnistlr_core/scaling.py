"""How a pixel reaches the first layer: what `config.Inputs` means in numbers. No torch: the Data page shows it too."""

from __future__ import annotations

from dataclasses import dataclass

from mnistlr_core.config import Inputs

__all__ = ["Affine", "affine"]


@dataclass(frozen=True, slots=True)
class Affine:
    """`pixel * scale + shift`: every input scaling is one of these."""

    scale: float
    shift: float


def affine(inputs: Inputs, *, mean: float, std: float) -> Affine:
    """The scaling of a pixel in 0..255.

    Args:
        mean: mean of the training pixels over 255, used by `standardised` only.
        std: their standard deviation, likewise.
    """
    match inputs:
        case Inputs.UNIT:
            return Affine(1 / 255, 0.0)
        case Inputs.SYMMETRIC:  # Normalize(0.5, 0.5)
            return Affine(2 / 255, -1.0)
        case Inputs.SYMMETRIC_TWICE:  # the same once more: (x - 0.5) * 2
            return Affine(4 / 255, -3.0)
        case Inputs.STANDARDISED:
            return Affine(1 / (255 * std), -mean / std)
        case Inputs.RAW:
            return Affine(1.0, 0.0)
