"""Content addresses: the hash of a value in its one canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

LENGTH = 12
"""Hex digits of an identity: 48 bits, enough to name the runs of a lab, short enough to read aloud."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; refuses values without a stable form (sets, objects, NaN).

    Raises:
        TypeError, ValueError: the value has no JSON form.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity(value: Any) -> str:
    """The identity of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:LENGTH]
