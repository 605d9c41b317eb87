"""What a store says of its teacher's convergence, and which of it belongs to a step of the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdforge.errors import StoreMismatch
from pdforge.store.convergence import Convergence
from tests.store import made

SHARDS = [{"steps": [1, 2], "loss": 5.0}, {"steps": [2, 3], "loss": 4.0}, {"steps": [3, 3], "loss": 3.5}]
RECORDED: dict[str, Any] = {"from_step": 1, "shards": SHARDS, "last": {"steps": [9, 9], "loss": 3.0}}


def test_of_a_store(tmp_path: Path) -> None:
    """Ten samples in shards of 4; the student takes 3 a step."""
    assert Convergence.known(str(tmp_path)) is None
    store = made.store(tmp_path, capture={"teacher_heldout_loss": 3.1, **RECORDED})
    found = Convergence.of(store.manifest, "the store")
    assert found == Convergence.known(str(tmp_path)) == Convergence((5.0, 4.0, 3.5), 4, 3.0)
    assert [found.excess(step, 3) for step in (1, 2, 3)] == pytest.approx([2.0, (2 + 1 + 1) / 3, (1 + 1 + 0.5) / 3])


@pytest.mark.parametrize("missing", [*RECORDED, None])
def test_a_store_that_does_not_say(tmp_path: Path, missing: str | None) -> None:
    capture = {name: value for name, value in RECORDED.items() if missing not in (None, name)}
    made.store(tmp_path, capture=capture)
    with pytest.raises(StoreMismatch, match="does not say how its teacher converged"):
        Convergence.known(str(tmp_path))


@given(
    losses=st.lists(st.floats(0, 20), min_size=1, max_size=8),
    size=st.integers(1, 9),
    batch=st.integers(1, 20),
    last=st.floats(0, 20),
)
def test_a_step_has_the_mean_over_its_samples(losses: list[float], size: int, batch: int, last: float) -> None:
    found = Convergence(tuple(losses), size, last)
    of_sample = [loss for loss in losses for _ in range(size)]
    for step in range(1, len(of_sample) // batch + 1):
        mean = sum(of_sample[(step - 1) * batch : step * batch]) / batch
        assert found.excess(step, batch) == pytest.approx(max(0.0, mean - last), abs=1e-9)
