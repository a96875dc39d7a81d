"""The datasets there are: what each is, known before any of its files is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from mnistlr_core.errors import DatasetMissing

__all__ = ["DATASETS", "DatasetInfo", "dataset_info"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What one dataset is; `sentence` says so to a user."""

    name: str
    title: str
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    train_size: int
    test_size: int
    sentence: str
    download_bytes: int
    folder: str
    """Where torchvision wants its files, below the data folder."""

    @property
    def pixels(self) -> int:
        """Numbers per image: 784 for MNIST."""
        return prod(self.image_shape)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, by its name."""
        sizes, kinds = {"train": self.train_size, "test": self.test_size}, {"images": self.image_shape, "labels": ()}
        return {f"{part}_{kind}": (size, *rest) for part, size in sizes.items() for kind, rest in kinds.items()}


_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_MNIST = (
    "Handwritten digits of census workers and students, collected by NIST and arranged by LeCun, Cortes and Burges."
)
_FASHION = "Photographs of clothes from Zalando's catalogue, made as a harder stand-in for MNIST."
_KMNIST = "Cursive Japanese characters from classical books, one for each row of hiragana, by the CODH in Tokyo."
_CIFAR = "Small colour photographs of animals and vehicles, collected by Krizhevsky, Nair and Hinton in Toronto."
_EMBEDDED = "The small handwritten digits that come with scikit-learn (1,797 of 8×8, from UCI): real, but not MNIST."

# download_bytes: the sum of the compressed files on the mirrors
_ALL = (
    DatasetInfo("mnist", "MNIST", (28, 28), _DIGITS, 60_000, 10_000, _MNIST, 11_594_722, "MNIST/raw"),
    DatasetInfo(
        "fashion-mnist", "Fashion-MNIST", (28, 28), _CLOTHES, 60_000, 10_000, _FASHION, 30_878_645, "FashionMNIST/raw"
    ),
    DatasetInfo("kmnist", "KMNIST", (28, 28), _KANA, 60_000, 10_000, _KMNIST, 21_240_888, "KMNIST/raw"),
    DatasetInfo(
        "cifar10", "CIFAR-10", (32, 32, 3), _OBJECTS, 50_000, 10_000, _CIFAR, 170_498_071, "cifar-10-batches-py"
    ),
    DatasetInfo("digits", "Digits 8×8", (8, 8), _DIGITS, 1_437, 360, _EMBEDDED, 0, ""),
)
DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({info.name: info for info in _ALL})


def dataset_info(name: str) -> DatasetInfo:
    """What the dataset of this name is; raises DatasetMissing for a name that isn't one of DATASETS."""
    if name not in DATASETS:
        raise DatasetMissing(f"A dataset is one of {', '.join(DATASETS)}; got {name!r}.")
    return DATASETS[name]
