"""A data set on the screen: its facts, its images one by one, its classes and its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from streamlit.delta_generator import DeltaGenerator

from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import fields
from mnistlr_core.data import Dataset, DatasetState, Origin
from mnistlr_core.data_charts import class_figure, class_sentence, pixel_figure, pixel_sentence
from mnistlr_core.lab import Lab
from mnistlr_core.survey import Division, Part, Pixels, Survey
from pages.parts import share, tiles
from pages.parts.data_sets import shape
from pages.parts.pixel_values import pixels_html
from pages.parts.tiles import Tile

__all__ = ["browse", "choose", "show_facts", "show_numbers"]

PAGE_SIZE = 48  # divided by every number of columns that the tiles may have

_FIELDS = {spec.name: spec for spec in fields()}
_OF_PIXELS = "Of all pixels of the training images, divided by 255."
_STILL = {"displayModeBar": False}
_SHARES = _FIELDS["valid_fraction"].steps


# Which data set -------------------------------------------------------------------------------------------------------


def choose(lab: Lab) -> str:
    """The data set to look at: MNIST, or digits as long as MNIST is not here and nothing else was asked for."""
    _strike_endless_number()
    asked = "data_set" in st.session_state or "data_set" in st.query_params
    if not asked and lab.dataset_status("mnist").state is not DatasetState.READY:
        st.session_state["data_set"] = "digits"
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        name: Any = st.segmented_control(
            "Data set",
            list(DATASETS),
            default="mnist",
            required=True,
            format_func=lambda name: DATASETS[name].title,
            key="data_set",
            bind="query-params",
            label_visibility="collapsed",
        )
        share.show()
    return str(name)


def _strike_endless_number() -> None:
    """Open the page anew without a number that Streamlit's field would raise OverflowError for, such as 1e999."""
    said = st.query_params.to_dict()
    try:
        endless = math.isinf(float(said.pop("data_image", "0")))
    except ValueError:
        return
    if endless:
        st.switch_page("pages/data.py", query_params=said)


# What it is -----------------------------------------------------------------------------------------------------------


def show_facts(lab: Lab, dataset: Dataset, origin: Origin) -> None:
    """What the data set is, where it is, and its first figures, which were known before anything is counted."""
    info, warning = dataset.info, lab.dataset_status(dataset.info.name).warning
    doubt = " :material/info: Not quite the published files." if warning else ""
    st.caption(
        f"{info.sentence} Images of {shape(info)}, uint8 from 0 to 255. "
        f"Read by `{origin.source}` and kept in `{origin.folder}`, {origin.size_bytes / 1e6:,.1f} MB.{doubt}",
        help=warning,
    )
    with st.grid(4, min_column_width=130):
        st.metric("Training images", f"{info.train_size:,}", border=True, height="stretch")
        st.metric("Test images", f"{info.test_size:,}", border=True, height="stretch")
        st.metric("Pixel mean", f"{dataset.pixel_mean:.4f}", border=True, height="stretch", help=_OF_PIXELS)
        st.metric("Pixel std", f"{dataset.pixel_std:.4f}", border=True, height="stretch", help=_OF_PIXELS)


# Its images -----------------------------------------------------------------------------------------------------------


def browse(lab: Lab, dataset: Dataset) -> Division:
    """The images by part and class, page by page, and one of them large. Returns what each image is for."""
    classes = dataset.info.classes
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            part: Any = st.segmented_control(
                "Split",
                list(Part),
                default=Part.TRAIN,
                required=True,
                format_func=lambda part: part.label,
                key="data_split",
                bind="query-params",
            )
            label: Any = st.selectbox(
                "Class",
                range(len(classes)),
                index=None,
                format_func=classes.__getitem__,
                key="data_class",
                placeholder="All",
                bind="query-params",
                width=150,
            )
            share: Any = st.selectbox(
                _FIELDS["valid_fraction"].title,
                _SHARES,
                index=_SHARES.index(_FIELDS["valid_fraction"].default),
                format_func=lambda share: f"{100 * share:g} %",
                key="data_valid",
                help=_FIELDS["valid_fraction"].help,
                bind="query-params",
                width=150,
            )
        division = lab.division(dataset.info.name, float(share))
        _look(dataset, division, Part(part), None if label is None else int(label))
    return division


@st.fragment
def _look(dataset: Dataset, division: Division, part: Part, label: int | None) -> None:
    """One page of the images and one of them large, which is on that page unless its number was typed in.

    A fragment: a click here draws nothing else anew.
    """
    chosen = division.choose(part, label)
    view = (dataset.info.name, part, label, len(division.rows[Part.VALID]))
    if len(chosen) and st.session_state.get("_data_view", view) != view:  # other images: from the first of them
        _turn_to(chosen, int(chosen[0]))
    st.session_state["_data_view"] = view
    if not len(chosen):
        st.caption("No image is held out for validation: its share is 0 %.")
        return
    many, one = st.columns(2, gap="medium")
    with many:
        counted, grid = st.empty(), st.container()
        shown = _page_of(chosen)
    with one:
        headline, drawn = st.empty(), st.container()
        row = _which(chosen, int(shown[0]), count=len(_arrays(dataset, part)[0]))
    _draw_one(dataset, division.part_of(row, test=part is Part.TEST), row, headline, drawn)
    first = int(np.searchsorted(chosen, shown[0]))
    counted.caption(f"{first + 1:,}–{first + len(shown):,} of {len(chosen):,} images")
    images, labels = _arrays(dataset, part)
    with grid:
        tiles.show(
            np.asarray(images[shown]),
            [_tile(dataset.info.classes[labels[index]], part, int(index)) for index in shown],
            key="data_tiles",
            label=f"{part.label} images",
            selected=_position(shown, row),
            on_pick=lambda position: _turn_to(chosen, int(shown[position])),
        )


def _page_of(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the chosen images that are on the page, and below them the way to other pages."""
    pages = -(-len(chosen) // PAGE_SIZE)
    if pages == 1:
        return chosen
    page = st.pagination(
        pages,
        max_visible_pages=5,
        key="data_page",
        on_change=lambda: _turn_to(chosen, int(chosen[PAGE_SIZE * (st.session_state["data_page"] - 1)])),
        bind="query-params",
    )
    return chosen[PAGE_SIZE * (page - 1) :][:PAGE_SIZE]


def _which(chosen: NDArray[np.int64], default: int, *, count: int) -> int:
    """The image that is shown large: a step back or forth among the chosen ones, or any of all by its number."""
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center", gap="small"):
        back, field, on = (st.container(width="content") for _ in range(3))
    typed = field.number_input(
        "Number of the image",
        min_value=0,
        max_value=count - 1,
        value=default,
        key="data_image",
        on_change=lambda: _turn_to(chosen, st.session_state["data_image"]),
        bind="query-params",
        label_visibility="collapsed",
        width=112,
    )
    row = default if typed is None else int(typed)
    at = int(np.searchsorted(chosen, row))
    after = at + (_position(chosen, row) is not None)
    for slot, word, icon, to in (
        (back, "Previous", ":material/chevron_left:", at - 1),
        (on, "Next", ":material/chevron_right:", after),
    ):
        there = 0 <= to < len(chosen)
        slot.button(
            word,
            icon=icon,
            icon_position="left" if word == "Previous" else "right",
            key=f"data_{word.lower()}",
            disabled=not there,
            on_click=_turn_to,
            args=(chosen, int(chosen[to]) if there else row),
        )
    return row


def _turn_to(chosen: NDArray[np.int64], row: int | None) -> None:
    """Show an image, and the page that it is on; in a callback, or before the widgets are drawn."""
    if row is None:
        return
    st.session_state["data_image"] = row
    position = _position(chosen, row)
    if position is not None:
        st.session_state["data_page"] = position // PAGE_SIZE + 1


def _position(rows: NDArray[np.int64], row: int) -> int | None:
    """Where a row is among ascending ones, or None."""
    at = int(np.searchsorted(rows, row))
    return at if at < len(rows) and rows[at] == row else None


def _draw_one(dataset: Dataset, part: Part, row: int, headline: DeltaGenerator, drawn: DeltaGenerator) -> None:
    images, labels = _arrays(dataset, part)
    image, name = np.asarray(images[row]), dataset.info.classes[labels[row]]
    of = Pixels.of(image)
    headline.markdown(f"###### {name} · {part.label.lower()} image {row:,}")
    drawn.html(pixels_html(image, f"{part.label} image {row}: {name}; each of its pixels from 0 to 255"))
    where = "The three values of each pixel are in its tooltip; they are" if image.ndim == 3 else "Pixels"
    drawn.caption(f"{where} from {of.low:.0f} to {of.high:.0f}, {of.mean:.1f} on average.")


def _tile(name: str, part: Part, row: int) -> Tile:
    return Tile(strong=name, small=f"{row:,}", label=f"{part.label} image {row}: {name}")


def _arrays(dataset: Dataset, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images and labels that a part's rows are in."""
    if part is Part.TEST:
        return dataset.test_images, dataset.test_labels
    return dataset.train_images, dataset.train_labels


# Its classes and its pixels -------------------------------------------------------------------------------------------


def show_numbers(dataset: Dataset, division: Division, survey: Survey) -> None:
    """How many images each class has and what they are on average; what values pixels have, as stored and as scaled."""
    classes = dataset.info.classes
    with st.grid(2, min_column_width=300):
        with st.container(border=True, height="stretch"):
            st.markdown("###### Images of each class")
            sentence = class_sentence(division.counts, classes)
            st.plotly_chart(class_figure(division.counts, classes), key="data_classes", config=_STILL, alt=sentence)
            st.caption(sentence)
        with st.container(border=True, height="stretch"):
            st.markdown("###### Values of the pixels")
            sentence = pixel_sentence(survey.histogram)
            st.plotly_chart(pixel_figure(survey.histogram), key="data_pixels", config=_STILL, alt=sentence)
            st.caption(f"{sentence} Counted over all training images.")
        with st.container(border=True, height="stretch"):
            st.markdown("###### The mean image of each class")
            _show_means(survey, division, classes)
        with st.container(border=True, height="stretch"):
            st.markdown("###### What a model gets to see")
            st.markdown(_scalings(survey))
            st.caption("Pixels reach the first layer as float32. The scaling is chosen on the Train page, under More.")


def _show_means(survey: Survey, division: Division, classes: Sequence[str]) -> None:
    """The mean images; a click on one filters the images above to its class, another click shows all again."""
    learned = division.counts[:2].sum(axis=0)  # they are of the training images, those for validation included
    filtered = st.session_state.get("data_class")
    tiles.show(
        survey.means,
        [
            Tile(strong=name, small=f"of {count:,}", label=f"Mean of {count:,} images of {name}")
            for name, count in zip(classes, learned, strict=True)
        ],
        key="data_means",
        label="The mean image of each class",
        selected=filtered,
        columns=(5,),
        on_pick=_filter_by,
    )
    st.caption("Each pixel is its mean over the training images of the class. Click one to browse its images.")


def _filter_by(label: int) -> None:
    st.session_state["data_class"] = None if st.session_state.get("data_class") == label else label


def _scalings(survey: Survey) -> str:
    """Range, mean and standard deviation of the pixels as stored and after each input scaling, as a table."""
    labels = dict(zip(_FIELDS["inputs"].choices, _FIELDS["inputs"].labels, strict=True))
    rows = [("stored, uint8", survey.stored), *((labels[inputs], seen) for inputs, seen in survey.scaled.items())]
    lines = [
        f"| {name} | {_number(of.low)} to {_number(of.high)} | {_number(of.mean)} | {_number(of.std)} |"
        for name, of in rows
    ]
    return "\n".join(["| Scaling | Range | Mean | Std |", "|:--|:-:|--:|--:|", *lines])


def _number(value: float) -> str:
    """Four figures at the most, with a true minus sign, and never a minus zero."""
    text = f"{value:.4g}" if abs(value) >= 5e-5 else "0"
    return text.replace("-", "−")
