"""Reports say what the run says, escape what people wrote, and fetch nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from mnistlr_core import report
from mnistlr_core.lab import Lab
from mnistlr_core.library import Library
from mnistlr_core.overlay import Across, Overlaid
from mnistlr_core.overlay_figure import overlay_figure
from mnistlr_core.records import Evidence, Run
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from mnistlr_core.take_away import Kind, comparison_file, run_curves, run_file
from tests.pages import trained

DIGITS = {"dataset": "digits", "epochs": 2, "batch_size": 32, "learning_rate": 0.1}


class Reader(HTMLParser):
    """Every address that the page itself would ask for, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.said = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag in ("script", "style")
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        self.said += "" if self._script else data


def test_exactly_the_public_names_are_exported() -> None:
    assert report.__all__ == ["Tested", "comparison_report", "run_report"]


@pytest.fixture
def run(settings: Settings, store: Store) -> Run:
    return trained(settings, store, DIGITS)


def test_a_run_is_reported_with_its_figures_curves_and_mistakes(settings: Settings, store: Store, run: Run) -> None:
    Library(store).edit(run.id, 0, name="<script>alert(1)</script>", note="a & b")
    lab = Lab(settings)
    file = run_file(lab, lab.run(run.id), Kind.REPORT)
    lab.close()
    text = file.decode()
    page = Reader(text)
    assert run.test is not None
    assert f"{100 * run.test.accuracy:.2f} %" in page.said
    assert "<script>alert(1)</script>" in page.said  # as text
    assert "<script>alert" not in text
    assert "a & b" in page.said
    assert text.count('class="plotly-graph-div"') == 3
    assert text.count("<figure>") == min(report.MOST_MISTAKES, run.test.errors)
    assert page.asked == []
    assert not re.search(r"@import|url\((?!data:)", text.partition("<script>")[0])


def test_a_run_without_predictions_is_reported_all_the_same(settings: Settings, run: Run) -> None:
    lab = Lab(settings)
    evidence = Evidence(run, lab.history(run.id))
    text = report.run_report(evidence, run_curves(lab, evidence), None)
    lab.close()
    assert text.count('class="plotly-graph-div"') == 2


def test_several_runs_are_reported_side_by_side(settings: Settings, store: Store, run: Run) -> None:
    other = trained(settings, store, DIGITS | {"learning_rate": 0.01})
    lab = Lab(settings)
    evidence = [Evidence(one, lab.history(one.id)) for one in (run, other)]
    drawn = [
        Overlaid(name, "#123456", "", 2, (run_curves(lab, one),), 41, (lab.epoch_seconds([one.run.id])[one.run.id],))
        for name, one in zip("AB", evidence, strict=True)
    ]
    lab.close()
    figure = overlay_figure(drawn, across=Across.EPOCH)
    page = Reader(comparison_file(Kind.REPORT, evidence, ["A", "B"], figure, ["A is <better>."]).decode())
    assert "A is <better>." in page.said
    assert "Learning rate" in page.said
    assert "Batch size" not in page.said
    assert page.asked == []
    with pytest.raises(ValueError, match="csv, json or report"):
        comparison_file(Kind.SCRIPT, evidence, ["A", "B"], figure, [])


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_file_has_its_content(settings: Settings, run: Run, kind: Kind) -> None:
    lab = Lab(settings)
    file = run_file(lab, run, kind)
    lab.close()
    assert len(file) > 100
    assert (kind.label, kind.extension) not in {(other.label, other.extension) for other in Kind if other is not kind}
