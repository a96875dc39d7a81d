"""Whose errors are whose: two runs' wrong test images sorted into sets, or every run against every other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from mnistlr_core.comparison import Pairwise, compare_errors, pairwise, wrong_in_all
from mnistlr_core.comparison_sentences import errors_sentence
from mnistlr_core.errors import ArtifactError, DatasetError
from mnistlr_core.evaluation import Predictions
from mnistlr_core.lab import Lab
from mnistlr_core.records import Run
from pages.parts import tiles
from pages.parts.tiles import Tile

__all__ = ["show"]

PAGE_SIZE = 48


def show(lab: Lab, runs: Sequence[Run], names: str) -> None:
    """The errors of the picked runs that have been tested; nothing for fewer than two of one data set."""
    tested = [(name, run) for name, run in zip(names, runs, strict=True) if run.test]
    if len(tested) < 2:
        return
    if len({run.config.dataset for _, run in tested}) > 1:
        st.caption(":material/image_not_supported: Runs on different images have no errors to compare.")
        return
    letters = "".join(name for name, _ in tested)
    try:
        predictions = [lab.predictions(run) for _, run in tested]
        dataset = lab.dataset(tested[0][1].config.dataset)
    except (ArtifactError, DatasetError) as error:
        st.warning(str(error), icon=":material/broken_image:")
        return
    with st.container(border=True):
        st.markdown("###### Errors")
        two = len(tested) == 2
        chosen = _two(predictions, letters, dataset.info.classes) if two else _many(predictions, letters)
        _images(predictions, letters, chosen, dataset.test_images, dataset.info.classes)


def _two(predictions: Sequence[Predictions], letters: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """The four sets with their sizes, of which one is shown; then counts by class, and what they mean."""
    a, b = letters[0], letters[1]
    errors = compare_errors(*predictions)
    sets = {
        f"Only {a} wrong": errors.only_a,
        f"Only {b} wrong": errors.only_b,
        "Both wrong": errors.both,
        "Same wrong class": errors.same,
    }
    st.caption(errors_sentence(errors, (a, b)))
    chosen: Any = st.segmented_control(
        "Which images",
        list(sets),
        default=f"Only {a} wrong",
        required=True,
        format_func=lambda name: f"{name}: {len(sets[name]):,}",
        key="cmp_errors",
        bind="query-params",
        label_visibility="collapsed",
    )
    header = "| | " + " | ".join(classes) + " |\n" + "|:--" + "|--:" * len(classes) + "|\n"
    counted = zip(sets, errors.per_class, strict=True)
    st.markdown(header + "\n".join(f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in counted))
    return sets.get(chosen, errors.only_a)


def _many(predictions: Sequence[Predictions], letters: str) -> NDArray[np.int64]:
    """How many images each run gets right that each other gets wrong; and those that all of them get wrong."""
    st.caption("Images that the run of the row gets right and that of the column wrong. Pale: within chance at 5 %.")
    st.markdown(_matrix(pairwise(predictions), letters))
    everywhere = wrong_in_all(predictions)
    st.caption(f"{len(everywhere):,} images are wrong in every run, those with the highest mean loss first:")
    return everywhere


def _matrix(found: Pairwise, letters: str) -> str:
    rows = ["| | " + " | ".join(letters) + " |", "|:--" + "|--:" * len(letters) + "|"]
    for row, name in enumerate(letters):
        cells = []
        for column in range(len(letters)):
            count = f"{found.better[row, column]:,}"
            chance = found.p[row, column] >= 0.05
            cells.append("" if row == column else f":gray[{count}]" if chance else f"**{count}**")
        rows.append(f"| **{name}** | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _images(
    predictions: Sequence[Predictions],
    letters: str,
    chosen: NDArray[np.int64],
    images: NDArray[np.uint8],
    classes: Sequence[str],
) -> None:
    """A page of the chosen images, with what each run read."""
    if not len(chosen):
        st.caption("No image is among these.")
        return
    pages, first = -(-len(chosen) // PAGE_SIZE), 0
    slot = st.container()
    if pages > 1:
        first = PAGE_SIZE * (st.pagination(pages, max_visible_pages=5, key="cmp_images", bind="query-params") - 1)
    shown = chosen[first : first + PAGE_SIZE]
    with slot:
        tiles.show(
            np.asarray(images[shown]),
            [_tile(predictions, letters, int(index), classes) for index in shown],
            key="cmp_tiles",
            label="Test images",
        )


def _tile(predictions: Sequence[Predictions], letters: str, index: int, classes: Sequence[str]) -> Tile:
    actual = classes[predictions[0].labels[index]]
    read = [classes[one.predicted[index]] for one in predictions]
    words = ", ".join(f"{name} reads {word}" for name, word in zip(letters, read, strict=True))
    small = " ".join(dict.fromkeys(read)) if len(read) > 2 else " · ".join(read)
    return Tile(strong=actual, small=small, label=f"Test image {index}: a {actual}; {words}")
