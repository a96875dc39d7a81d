"""The contenders: each trains one model from scratch, in the way its own users do, and tells how long an epoch took.

All run on the main thread: a second thread that calls torch would have OpenMP workers of its own, and two-thread
work would take twice as long. JAX is imported when its turn comes, and stays in the process from then on.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import products
from benchmarks.digits import CLASSES, PIXELS, Digits
from benchmarks.measure import ENGINE, Outcome
from mnistlr_core.batches import ImageSet
from mnistlr_core.config import Architecture, Optimizer, RunConfig
from mnistlr_core.models import build
from mnistlr_core.settings import Settings
from mnistlr_core.tasks import _set_up_torch
from mnistlr_core.training import Cohort, EpochDone, TrainingData

__all__ = ["CONTENDERS", "Contender"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to train the model of a configuration."""

    key: str
    name: str
    run: Callable[[RunConfig, Digits], Outcome]
    needs: tuple[str, ...] = ()
    """Modules beyond the project's own requirements; their names are those of their packages."""

    def absent(self) -> str | None:
        """What to do so that it can run; None when it can."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"Not installed: {', '.join(missing)}; pip install -r benchmarks/requirements.txt" if missing else None


def _engine(config: RunConfig, digits: Digits) -> Outcome:
    """`Cohort.fit`, with the threads that a worker would give it. It counts training accuracy as it goes."""
    _set_up_torch(Settings(device="cpu", workers=1), config)
    rows = torch.arange(len(digits.train_labels))
    test = ImageSet(digits.test_images, digits.test_labels)
    data = TrainingData(
        train=ImageSet(digits.train_images, digits.train_labels),
        test=test,
        train_rows=rows,
        valid_rows=rows[:0],
        classes=CLASSES,
        pixel_mean=0.1307,
        pixel_std=0.3081,
    )
    cohort = Cohort([config], data)
    epochs = []
    started = perf_counter()
    for progress in cohort.fit():
        if isinstance(progress, EpochDone):
            epochs.append(perf_counter() - started)
            started = perf_counter()
    return Outcome(tuple(epochs), cohort.score(test)[0].accuracy)


def _article(config: RunConfig, digits: Digits) -> Outcome:
    """The tutorials' loop: a DataLoader over PIL images, autograd, and the loss read after every batch."""
    torch.manual_seed(config.seed)
    loader = DataLoader(digits.pictures, batch_size=config.batch_size, shuffle=True)
    model = build(config, pixels=PIXELS, classes=CLASSES)
    criterion = nn.CrossEntropyLoss()
    optimizer = _torch_optimizer(config)(model.parameters(), lr=config.learning_rate)
    epochs = []
    for _ in range(config.epochs):
        started = perf_counter()
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        epochs.append(perf_counter() - started)
    with torch.no_grad():
        answers = model(torch.from_numpy(digits.test_floats)).argmax(1)
    return Outcome(tuple(epochs), float((answers == digits.test_labels).double().mean()))


def _torch_optimizer(config: RunConfig) -> type[torch.optim.SGD | torch.optim.Adam]:
    return torch.optim.SGD if config.optimizer is Optimizer.SGD else torch.optim.Adam


def _skorch(config: RunConfig, digits: Digits) -> Outcome:
    """skorch on the same module, from float32 arrays in memory. It counts the training loss as it goes."""
    from skorch import NeuralNetClassifier

    torch.manual_seed(config.seed)
    net = NeuralNetClassifier(
        build(config, pixels=PIXELS, classes=CLASSES),
        criterion=nn.CrossEntropyLoss,
        optimizer=_torch_optimizer(config),
        lr=config.learning_rate,
        batch_size=config.batch_size,
        max_epochs=config.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    net.fit(digits.train_floats, digits.train_labels.numpy())
    answers = net.predict(digits.test_floats)
    return Outcome(tuple(net.history[:, "dur"]), _accuracy(answers, digits))


def _sklearn(config: RunConfig, digits: Digits) -> Outcome:
    """scikit-learn's own estimators; they tell only the whole time, so an epoch's is their mean.

    `SGDClassifier` is no softmax regression by batches: it fits ten one-against-all models, one image a step.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import SGDClassifier
    from sklearn.neural_network import MLPClassifier

    if config.architecture is Architecture.LINEAR:
        model = SGDClassifier(
            loss="log_loss",
            penalty=None,
            learning_rate="constant",
            eta0=config.learning_rate,
            max_iter=config.epochs,
            tol=None,
            n_jobs=-1,
            random_state=config.seed,
        )
    else:
        model = MLPClassifier(
            config.hidden,
            activation="logistic",
            solver="adam",
            alpha=0.0,
            batch_size=config.batch_size,
            learning_rate_init=config.learning_rate,
            max_iter=config.epochs,
            n_iter_no_change=config.epochs + 1,
            random_state=config.seed,
        )
    images, labels = digits.train_floats, digits.train_labels.numpy()
    started = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(images, labels)
    seconds = perf_counter() - started
    return Outcome((seconds / config.epochs,), _accuracy(model.predict(digits.test_floats), digits))


def _keras(config: RunConfig, digits: Digits) -> Outcome:
    """Keras 3 on JAX: `fit` on float32 arrays in memory. The first epoch compiles, and is told apart."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import keras

    keras.utils.set_random_seed(config.seed)
    sizes = config.layer_sizes(pixels=PIXELS, classes=CLASSES)
    hidden = [keras.layers.Dense(fan_out, activation="sigmoid") for _, fan_out in sizes[:-1]]
    model = keras.Sequential([keras.Input((PIXELS,)), *hidden, keras.layers.Dense(CLASSES)])
    optimizers = {Optimizer.SGD: keras.optimizers.SGD, Optimizer.ADAM: keras.optimizers.Adam}
    model.compile(
        optimizer=optimizers[config.optimizer](config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    marks: list[float] = []  # an epoch's begin and end, in turn

    def mark(*_: Any) -> None:
        marks.append(perf_counter())

    model.fit(
        digits.train_floats,
        digits.train_labels.numpy(),
        batch_size=config.batch_size,
        epochs=config.epochs,
        shuffle=True,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=mark, on_epoch_end=mark)],
    )
    first, *epochs = (end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True))
    answers = model.predict(digits.test_floats, batch_size=1000, verbose=0).argmax(1)
    return Outcome(tuple(epochs), _accuracy(answers, digits), first_epoch=first)


def _accuracy(answers: Any, digits: Digits) -> float:
    """Share of the test images whose class, in an array [n], is right."""
    return float((answers == digits.test_labels.numpy()).mean())


CONTENDERS = (
    Contender(ENGINE, "this engine", _engine),
    Contender("products", "bare products, engine's layout", products.engine_layout),
    Contender("products-nn", "bare products, nn.Linear's layout", products.tutorial_layout),
    Contender("keras", "Keras 3 on JAX, from the 2nd epoch", _keras, ("keras", "jax")),
    Contender("skorch", "skorch", _skorch, ("skorch",)),
    Contender("sklearn", "scikit-learn", _sklearn),
    Contender("article", "the article's loop", _article),
)
"""In the order in which they take their turns; the ones that a promise compares closely follow each other."""
