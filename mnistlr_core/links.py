"""Configurations in a link, so that a server which has never seen a run can train it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence

from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import ConfigError

__all__ = ["pack", "unpack"]

MOST = 26
_LONGEST = 8_000  # characters; a dozen configurations take 400
_LARGEST = 64_000  # bytes unpacked: what a small text may not blow up to


def pack(configs: Sequence[RunConfig]) -> str:
    """Configurations as text for a URL: their values that are not the defaults, as compressed JSON in base64."""
    usual = RunConfig().model_dump(mode="json")
    values = [{k: v for k, v in config.canonical().items() if v != usual[k]} for config in configs]
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpack(text: str) -> tuple[RunConfig, ...]:
    """The configurations in a link; whatever can't be read is no configuration, and raises nothing."""
    if len(text) > _LONGEST:
        return ()
    try:
        packed = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        found = json.loads(zlib.decompressobj().decompress(packed, _LARGEST))
    except (ValueError, zlib.error, RecursionError):
        return ()
    return tuple(config for values in found[:MOST] if (config := _read(values))) if isinstance(found, list) else ()


def _read(values: object) -> RunConfig | None:
    try:
        return parse_config(values) if isinstance(values, dict) else None
    except ConfigError:
        return None
