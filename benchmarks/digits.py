"""The images that every contender trains on: real MNIST, or generated ones of the same shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

__all__ = ["CLASSES", "PIXELS", "Digits", "generated", "real"]

PIXELS = 28 * 28
CLASSES = 10
_TRAIN, _TEST = 60_000, 10_000


@dataclass(frozen=True, eq=False)
class Digits:
    """Images and labels in memory, and the same training images as the tutorials get them, one picture at a time."""

    words: str
    is_real: bool
    train_images: Tensor
    """uint8 [n, 784]; likewise `test_images`."""
    train_labels: Tensor
    """int64 [n]; likewise `test_labels`."""
    test_images: Tensor
    test_labels: Tensor
    pictures: Dataset[tuple[Tensor, int]]
    """Training images by `ToTensor` from PIL images: float32 [1, 28, 28] in 0..1, with their labels."""

    @cached_property
    def train_floats(self) -> NDArray[np.float32]:
        """Training pixels / 255, float32 [n, 784]: the in-memory form that scikit-learn, skorch and Keras take."""
        return _floats(self.train_images)

    @cached_property
    def test_floats(self) -> NDArray[np.float32]:
        return _floats(self.test_images)

    def first(self, count: int) -> Digits:
        """The same with no more than `count` training images."""
        count = min(count, len(self.train_labels))
        return replace(
            self,
            train_images=self.train_images[:count],
            train_labels=self.train_labels[:count],
            pictures=Subset(self.pictures, range(count)),
        )


def _floats(images: Tensor) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = images.float().div_(255).numpy()
    return scaled


def real(root: Path, images: int | None = None) -> Digits | None:
    """MNIST below torchvision's `root`, its first `images` training images or all; None when it isn't there."""
    try:
        train, test = MNIST(str(root), train=True, transform=transforms.ToTensor()), MNIST(str(root), train=False)
    except RuntimeError:
        return None
    count = min(images or len(train), len(train))
    whole = Digits(
        f"real MNIST, {count:,} training and {len(test):,} test images",
        True,
        train.data.reshape(len(train), -1),
        train.targets,
        test.data.reshape(len(test), -1),
        test.targets,
        train,
    )
    return whole if count == len(train) else whole.first(count)


def generated(images: int | None = None) -> Digits:
    """Ten blurred patterns with noise, told apart as easily as digits are: the shapes and types of MNIST."""
    count = images or _TRAIN
    tests = min(_TEST, count)
    rng = np.random.default_rng(0)
    patterns = np.kron(rng.integers(0, 160, (CLASSES, 7, 7)) * (rng.random((CLASSES, 7, 7)) < 0.4), np.ones((4, 4)))
    labels = rng.integers(0, CLASSES, count + tests)
    noise = rng.integers(0, 96, (count + tests, PIXELS), dtype=np.uint8)
    pixels = patterns.reshape(CLASSES, PIXELS).astype(np.uint8)[labels] + noise  # at most 254
    everything, classes = torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))
    return Digits(
        f"GENERATED images, not MNIST: {count:,} to train on and {tests:,} to test",
        False,
        everything[:count],
        classes[:count],
        everything[count:],
        classes[count:],
        _Pictures(everything[:count], classes[:count]),
    )


class _Pictures(Dataset[tuple[Tensor, int]]):
    """What `torchvision.datasets.MNIST` does for an image: tensor -> PIL image -> `ToTensor`."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images.view(-1, 28, 28), labels
        self._transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index].numpy())), int(self._labels[index])
