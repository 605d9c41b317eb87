"""Segments that a training left, of any number, read by sample."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pdforge.errors import StoreDamaged, StoreMissing
from pdforge.store.segments import Segments
from pdforge.store.shards import write_shard_file
from tests.stages.conftest import ENVIRONMENT


def _write(folder: Path, number: int, samples: list[int]) -> None:
    """A segment of one step in which the teacher lost a tenth of each sample's number."""
    meta = {
        "samples": samples,
        "steps": [number + 1] * len(samples),
        "losses": [sample / 10 for sample in samples],
        "fidelity": {str(samples[0]): {"sampled": samples[0]}},
    }
    name = f"segment-{number + 1:09d}-{number + 1:09d}-00000.bin"
    write_shard_file(folder / name, [f"block of {sample}".encode() for sample in samples], meta)


def test_samples_are_found_in_whatever_segment_they_are(tmp_path: Path) -> None:
    _write(tmp_path, 0, [7, 4])
    _write(tmp_path, 1, [5, 6, 9])
    segments = Segments(tmp_path)
    assert [segments.block(sample) for sample in (4, 5, 9)] == [b"block of 4", b"block of 5", b"block of 9"]
    assert [segments.seen(sample) for sample in (7, 6)] == [(1, 0.7), (2, 0.6)]
    assert segments.fidelity(5) == {"sampled": 5}
    assert segments.end == 10
    segments.require(range(4, 8))
    with pytest.raises(StoreMissing, match=r"no distributions of sample 8 \(1 of 6 are missing\)"):
        segments.require(range(4, 10))
    for missing in (8, 10):
        with pytest.raises(StoreMissing, match=f"sample {missing}"):
            segments.block(missing)


def test_none_at_all(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    assert segments.end == 0
    with pytest.raises(StoreMissing, match="2 of 2"):
        segments.require(range(2))


def test_a_sample_that_is_there_twice(tmp_path: Path) -> None:
    _write(tmp_path, 0, [0, 1])
    _write(tmp_path, 1, [2, 1])
    with pytest.raises(StoreDamaged, match=r"segment-000000002-.*: sample 1 is in .*segment-000000001-"):
        Segments(tmp_path)


_FEW_DESCRIPTORS = """
import resource, sys
from pathlib import Path
from pdforge.store.segments import Segments
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
segments = Segments(Path(sys.argv[1]))
segments.require(range(400))
blocks = [segments.block(sample) for sample in range(400)]
assert blocks == [b"block of %d" % sample for sample in range(400)]
"""


def test_more_segments_than_descriptors(tmp_path: Path) -> None:
    for number in range(200):
        _write(tmp_path, number, [number, number + 200])
    subprocess.run([sys.executable, "-c", _FEW_DESCRIPTORS, str(tmp_path)], env=ENVIRONMENT, check=True)
