"""Names of repositories on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(path: str) -> bool:
    """Whether `path` is nothing local and may name a hub repository: `organisation/name`."""
    return _HUB_ID.fullmatch(path) is not None and not path.endswith(".json") and not Path(path).exists()
