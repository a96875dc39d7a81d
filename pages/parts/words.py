"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["duration", "percent"]


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
