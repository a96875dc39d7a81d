"""Numbers as people read them."""

from __future__ import annotations

from mnistlr_core.config import Inputs, RunConfig, fields

__all__ = ["ago", "duration", "percent", "plain", "setting"]

_MARKS = {ord(mark): f"\\{mark}" for mark in r"\`*_{}[]<>()#+-.!|~:$"}


def duration(seconds: float) -> str:
    """`0.8 s`, `12 s`, `3 min`, `2.5 h`: as exact as an estimate deserves."""
    if seconds < 9.95:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def percent(share: float) -> str:
    """An accuracy as `91.87 %`."""
    return f"{100 * share:.2f} %"


def setting(config: RunConfig) -> str:
    """What is trained, in a line: the label, and what is not as usual in inputs, outputs and held-out images."""
    labels = {spec.name: dict(zip(spec.choices, spec.labels, strict=True)) for spec in fields() if spec.choices}
    words = [config.label, f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"]
    if config.inputs is not Inputs.UNIT:
        words.append(f"pixels {labels['inputs'][config.inputs]}")
    if config.output_sigmoid:
        words.append("sigmoid on the output")
    words.append(f"{config.valid_fraction:.0%} held out".replace("%", " %") if config.valid_fraction else "all images")
    return " · ".join(words)


def ago(seconds: float) -> str:
    """`now`, `5 min`, `3 h`, `2 d`: how old something is."""
    if seconds < 60:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3600)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} min"


def plain(text: str) -> str:
    """Somebody's own words for `st.markdown`, which is to show them and obey none."""
    return text.translate(_MARKS)
