"""Questions about the functions of Python's standard library, made from its source."""

from __future__ import annotations

import hashlib
from typing import Any

import datasets

from pdforge.store.conversations import docstrings
from pdforge.store.corpus_files import standard_library

_BYTES = 3_000_000
_CHOICES = 4
_TRAIN = 16


def dataset(**_: Any) -> dict[str, datasets.Dataset]:
    """`{description, choices, label}`: the names of others from the same source are the wrong choices."""
    found = [(name, text) for name, text in docstrings(standard_library(_BYTES)) if name not in text]
    rows = []
    for number, (name, text) in enumerate(found):
        others = [found[(number + step) % len(found)][0] for step in (1, 2, 3, 5, 8, 13)]
        wrong = [other for other in dict.fromkeys(others) if other != name][: _CHOICES - 1]
        label = hashlib.sha256(text.encode()).digest()[0] % _CHOICES
        rows.append({"description": text, "choices": [*wrong[:label], name, *wrong[label:]], "label": label})
    return {"train": datasets.Dataset.from_list(rows[:_TRAIN]), "test": datasets.Dataset.from_list(rows[_TRAIN:])}
