"""From uint8 images on the device to scaled batches: gathered and converted a block of batches at a time.

No DataLoader and no transform per image: for a linear model they cost twenty times the arithmetic. (Reading the next
block in a thread was tried: a second thread that calls torch makes OpenMP's workers sleep between operations, and the
MLP trains at half the speed.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mnistlr_core.scaling import Affine

__all__ = ["Block", "Gatherer", "ImageSet", "read_blocks"]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images uint8 [n, pixels] and labels int64 [n], both on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole batches, and perhaps an epoch's last and smaller one. Its images are overwritten by the next one's."""

    images: Tensor
    """Scaled, float32 [n, pixels]."""
    labels: Tensor
    """int64 [n]."""
    targets: Tensor
    """One-hot labels, float32 [classes, n]."""
    pull: Tensor
    """-targets over the size of each image's batch: the labels' part of the gradient of the mean cross entropy."""
    whole: int
    """How many of the n images are in batches of the full size."""


class Gatherer:
    """Gathers and scales images into buffers of its own, which the next call overwrites.

    A fresh tensor of a block's size comes from the operating system each time: its page faults cost more than the copy.
    """

    def __init__(self, scaling: Affine) -> None:
        self._scaling = scaling
        self._bytes = torch.empty(0, 0, dtype=torch.uint8)
        self._floats = torch.empty(0, 0)

    def __call__(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """uint8 [n, pixels] -> float32 [rows, pixels]: the images of `rows`, or all of them."""
        count, pixels = images.shape[0] if rows is None else rows.shape[0], images.shape[1]
        if self._floats.shape[0] < count:
            self._bytes = images.new_empty(count, pixels)
            self._floats = torch.empty(count, pixels, device=images.device)
        if rows is not None:
            images = torch.index_select(images, 0, rows, out=self._bytes[:count])
        scaled = self._floats[:count].copy_(images).mul_(self._scaling.scale)
        return scaled.add_(self._scaling.shift) if self._scaling.shift else scaled


def read_blocks(
    source: ImageSet, blocks: Iterable[Tensor], *, scaling: Affine, batch_size: int, classes: int
) -> Iterator[Block]:
    """Read blocks of rows, one at a time."""
    one_hot = torch.eye(classes, device=source.labels.device)
    gather = Gatherer(scaling)
    for rows in blocks:
        labels = source.labels.index_select(0, rows)
        targets = one_hot.index_select(1, labels)
        count = rows.shape[0]
        whole = count // batch_size * batch_size
        pull = targets * (-1 / batch_size)
        if whole < count:
            pull[:, whole:] = targets[:, whole:] / (whole - count)
        yield Block(gather(source.images, rows), labels, targets, pull, whole)
