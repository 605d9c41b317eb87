"""Size, fidelity and speed of the logit store on a real teacher's output, beside plain formats, in one run.

    python benchmarks/store.py [--data DIR] [--train-data DIR] [--json]

`--data` (default: $PDFORGE_TEACHER_DATA) holds, for S sequences of L positions: `indices.npy` and `logprobs.npy`
[S, L, K] (by falling probability), `count.npy` and `mass.npy` [S, L]. `--train-data` (default: `teacher_train` beside
it) holds what the same teacher kept on *other* text, of which the rank tables are learnt: `count.npy`, and `ids.npy`
[sum of counts].

Values that are float16 flatter the codec `lossless`, which keeps float32: its row then says so. Rates are tokens per
second of CPU time on one core, the best of `--repeat` passes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pdforge.store.codec import CODECS, LogitBlock, decode, encode
from pdforge.store.fidelity import MASS_EDGES, divergence
from pdforge.store.files import Folder
from pdforge.store.logits import LogitSpec, LogitStore, LogitWriter
from pdforge.store.manifest import Shard, write_manifest
from pdforge.store.ranks import Ranks
from pdforge.store.spec import KIND, Fidelity, Manifest, fix_spec, shard_name

WIDTH = 100
"""K of the rows that are decoded."""

SHARPER = 0.78
"""The proxy of a sharper teacher: the kept probabilities to the power 1/0.78, renormalised, then top-0.95 of that. It
keeps about 21 entries of the flat teacher's 67."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PDFORGE_TEACHER_DATA"), help="what is measured")
    parser.add_argument("--train-data", type=Path, help="what the rank tables are learnt from")
    parser.add_argument("--repeat", type=int, default=9, help="passes of which the best counts")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, bar, ok}")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name a folder of a teacher's output with --data or $PDFORGE_TEACHER_DATA; see --help")
    data = Path(options.data)
    train = options.train_data or data.parent / "teacher_train"
    for file in (data / "indices.npy", train / "ids.npy"):
        if not file.exists():
            parser.error(f"no {file}; see --help for what the folders hold")
    blocks, sharp = load(data)
    count, ids = np.load(train / "count.npy").ravel(), np.load(train / "ids.npy")
    vocabulary = int(max(ids.max(), *(block.ids.max() for block in blocks))) + 1
    one = Ranks.from_counts(np.bincount(ids, minlength=vocabulary))
    several = Ranks.learn(count, ids, vocabulary)
    rows = (
        plain_formats(blocks, vocabulary)
        + codecs(blocks, sharp, one, several, options.repeat)
        + through_the_store(blocks, one, options.repeat)
        + opening()
    )
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        verdict = {True: "ok", False: "MISSED", None: ""}[row["ok"]]
        print(f"{row['name']:<66} {row['value']:>11.5g} {row['unit']:<12} {row['bar']:<16} {verdict}")


def load(folder: Path) -> tuple[list[LogitBlock], list[LogitBlock]]:
    """The blocks there; and those of a sharper teacher, as far as the most probable K entries tell."""
    ids, logprobs, count, mass = (np.load(folder / f"{n}.npy") for n in ("indices", "logprobs", "count", "mass"))
    kept = np.arange(ids.shape[2]) < count[..., None]
    sharp = logprobs.astype(np.float64) / SHARPER
    sharp -= np.log(np.exp(sharp).sum(2, keepdims=True))
    p = np.exp(sharp)
    fewer = np.cumsum(p, axis=2) - p < 0.95
    return (
        blocks_of(ids, logprobs, kept, mass),
        blocks_of(ids, sharp, fewer, np.where(fewer, p, 0).sum(2).astype(np.float32)),
    )


def blocks_of(ids: np.ndarray, logprobs: np.ndarray, kept: np.ndarray, mass: np.ndarray) -> list[LogitBlock]:
    return [
        LogitBlock(k.sum(1).astype(np.uint16), i[k].astype(np.int32), p[k].astype(np.float32), m)
        for i, p, k, m in zip(ids, logprobs, kept, mass, strict=True)
    ]


def row(
    name: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None
) -> dict[str, Any]:
    ok = value <= at_most if at_most is not None else value >= at_least if at_least is not None else None
    bar = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}" if at_least is not None else ""
    return {"name": name, "value": value, "unit": unit, "bar": bar, "ok": ok}


def rate(work: Callable[[], object], tokens: int, repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return tokens / best / 1e6


def tokens_of(blocks: list[LogitBlock]) -> int:
    return sum(len(block.count) for block in blocks)


def entries_of(blocks: list[LogitBlock]) -> int:
    return sum(len(block.ids) for block in blocks)


SIZES: dict[str, float] = {}
"""Format → bits an entry, of this run."""


def plain_formats(blocks: list[LogitBlock], vocabulary: int) -> list[dict[str, Any]]:
    rows = [row("entries kept a position", entries_of(blocks) / tokens_of(blocks), "entries")]
    for name, write, read in (
        ("int32 + float32, npz", npz_write, npz_read),
        ("bit-packed ids + float16", lambda b: packed_write(b, vocabulary), lambda d: packed_read(d, vocabulary)),
        ("Parquet, zstd, int32 + float16", parquet_write, parquet_read),
    ):
        data = [write(block) for block in blocks]
        for block, one in zip(blocks, data, strict=True):
            assert np.array_equal(read(one)[1], block.ids)
        SIZES[name] = 8 * sum(map(len, data)) / entries_of(blocks)
        rows.append(row(f"{name}: size", SIZES[name], "bits/entry"))
    return rows


def codecs(
    blocks: list[LogitBlock], sharp: list[LogitBlock], one: Ranks, several: Ranks, repeat: int
) -> list[dict[str, Any]]:
    bits = {"rank-gap-63": 12.5, "context-40": 10.6}
    rows = []
    for name, codec in CODECS.items():
        if codec.values == "draws":
            continue
        default, ranks = name == "rank-gap-63", several if codec.tables else one
        data = [encode(codec, ranks, block) for block in blocks]
        decoded = [decode(codec, ranks, d, length=len(b.count), width=WIDTH) for b, d in zip(blocks, data, strict=True)]
        kl = np.concatenate([divergence(*pair) for pair in zip(blocks, decoded, strict=True)])
        SIZES[name] = 8 * sum(map(len, data)) / entries_of(blocks)
        half = all(np.array_equal(b.logprobs, b.logprobs.astype(np.float16)) for b in blocks)
        note = " (of float16 values)" if codec.values == "floats" and half else ""
        rows += [
            row(f"{name}{note}: size", SIZES[name], "bits/entry", at_most=bits.get(name)),
            row(f"{name}: mean KL", float(kl.mean()), "nats", at_most=5e-4 if default else None),
            row(f"{name}: worst KL", float(kl.max()), "nats", at_most=1.5e-3 if default else None),
            *speed(name, blocks, ranks, repeat, encode_bar=0.4 if default else None, bar=0.7 if default else None),
        ]
    size = SIZES["rank-gap-63"]
    smaller = {"int32 + float32, npz": 5.0, "bit-packed ids + float16": 2.6, "Parquet, zstd, int32 + float16": None}
    rows += [
        row(f"rank-gap-63: smaller than {n}", SIZES[n] / size, "times", at_least=bar) for n, bar in smaller.items()
    ]
    kept = entries_of(sharp) / tokens_of(sharp)
    rows += speed(f"rank-gap-63, sharpened proxy ({kept:.0f} kept)", sharp, one, repeat, encode_bar=None, bar=1.0)
    unordered = Ranks.from_counts(np.zeros(one.vocabulary, np.int64))
    bits_unordered = 8 * sum(len(encode(CODECS["rank-gap-63"], unordered, b)) for b in blocks) / entries_of(blocks)
    return [*rows, row("rank-gap-63 without rank counts: size", bits_unordered, "bits/entry")]


def speed(
    name: str, blocks: list[LogitBlock], ranks: Ranks, repeat: int, *, encode_bar: float | None, bar: float | None
) -> list[dict[str, Any]]:
    codec, length, tokens = CODECS[name.split(",", maxsplit=1)[0]], len(blocks[0].count), tokens_of(blocks)
    data = [encode(codec, ranks, block) for block in blocks]
    writes = rate(lambda: [encode(codec, ranks, block) for block in blocks], tokens, repeat)
    reads = rate(lambda: [decode(codec, ranks, d, length=length, width=WIDTH) for d in data], tokens, repeat)
    return [
        row(f"{name}: encode", writes, "M tokens/s", at_least=encode_bar),
        row(f"{name}: decode to [N, {WIDTH}]", reads, "M tokens/s", at_least=bar),
    ]


def spec_of(length: int, vocabulary: int, sequences: int, shard_sequences: int) -> LogitSpec:
    same = dict.fromkeys(("identity", "teacher", "tokens", "tokens_content", "tokenizer"), "benchmark")
    return LogitSpec(
        **same,
        sequence_length=length,
        vocabulary=vocabulary,
        top_p=0.95,
        top_k=WIDTH,
        sequences=sequences,
        shard_sequences=shard_sequences,
        teacher_dtype="float32",
    )


def through_the_store(blocks: list[LogitBlock], ranks: Ranks, repeat: int) -> list[dict[str, Any]]:
    """A whole store on disk: what it takes, how fast samples come in random order, and what cutting again changes."""
    length, tokens = len(blocks[0].count), tokens_of(blocks)
    order = np.random.default_rng(0).permutation(len(blocks))
    codec = CODECS["rank-gap-63"]
    with tempfile.TemporaryDirectory() as folder:
        writer = LogitWriter(folder, spec_of(length, ranks.vocabulary, len(blocks), 16), lambda: ranks)
        for shard in writer.missing_shards():
            writer.write_shard(shard, blocks[shard * 16 : (shard + 1) * 16])
        size = writer.finish({}).bytes
        data = [encode(codec, ranks, block) for block in blocks]
        speeds = {
            "decoding alone": rate(
                lambda: [decode(codec, ranks, d, length=length, width=WIDTH) for d in data], tokens, repeat
            )
        }
        for name, place in (("mmap", folder), ("fsspec", f"local://{folder}")):
            store = LogitStore.open(place)
            speeds[name] = rate(lambda s=store: [s.get(int(i), ordered=False) for i in order], tokens, repeat)
            speeds[f"{name}, rows sorted"] = rate(lambda s=store: [s.get(int(i)) for i in order], tokens, repeat)
        same, moved = cut_again(store, blocks, 0.9, WIDTH // 2)
    alone = speeds["decoding alone"]
    return [
        row("store, shards and index: size", size / tokens, "bytes/token"),
        *(row(f"store, random samples, {name}: read", value, "M tokens/s") for name, value in speeds.items()),
        row("store, random samples, fsspec: time over decoding", alone / speeds["fsspec"], "times", at_most=2),
        row(f"cut again to top-0.9-{WIDTH // 2}: positions with the same ids", same, "fraction"),
        row(f"cut again to top-0.9-{WIDTH // 2}: mass on other ids", moved, "fraction"),
    ]


_OPEN = """
import sys, time
from pathlib import Path
from pdforge.store.logits import LogitStore
start = time.perf_counter()
store = LogitStore.open(sys.argv[1])
seconds = time.perf_counter() - start
status = Path("/proc/self/status").read_text()
print(seconds, int(status.split("VmHWM:")[1].split()[0]) / 1024, len(store))
"""


def opening(shards: int = 6000) -> list[dict[str, Any]]:
    """Opening, in a process of its own, the manifest and rank table of a store of 100B tokens. It has no shard files:
    opening reads none.
    """
    spec = spec_of(4096, 151_552, sequences=4096 * shards, shard_sequences=4096)
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(name)
        _, digest = fix_spec(folder, spec, None)
        files = [Shard(file=shard_name(i), blocks=4096, bytes=1 << 30, xxh3=f"{i:016x}") for i in range(shards)]
        bins, counts = (0,) * len(MASS_EDGES), (0,) * (WIDTH + 1)
        fidelity = Fidelity(
            positions=1, entries=1, counts=counts, masses=bins, mass_sum=1, sampled=1, kl_sum=0, kl_max=0
        )
        manifest = Manifest(**spec.model_dump(), ranks=digest, shard_files=tuple(files), fidelity=fidelity, capture={})
        write_manifest(folder, KIND, manifest)
        done = subprocess.run([sys.executable, "-c", _OPEN, name], capture_output=True, text=True, check=True)
    seconds, megabytes, sequences = map(float, done.stdout.split())
    assert sequences == spec.sequences
    return [
        row(f"open a store of {shards} shards (synthetic): time", seconds, "s", at_most=1),
        row(f"open a store of {shards} shards: memory of the whole process", megabytes, "MiB", at_most=100),
    ]


def cut_again(store: LogitStore, blocks: list[LogitBlock], top_p: float, top_k: int) -> tuple[float, float]:
    """Against the same cut of the captured values: positions with the same ids, and mean mass on ids that differ."""
    same, moved = [], []
    for sample, block in enumerate(blocks):
        ids, logprobs, _ = store.get(sample, top_p, top_k)
        end = np.cumsum(block.count.astype(int))
        for position, stop in enumerate(end):
            start = stop - int(block.count[position])
            p = np.exp(block.logprobs[start:stop].astype(np.float64))
            kept = (np.cumsum(p) - p < top_p) & (np.arange(len(p)) < top_k)
            exact, again = block.ids[start:stop][kept], ids[position][np.isfinite(logprobs[position])]
            other = np.setxor1d(exact, again)
            same.append(not len(other))
            moved.append(p[np.isin(block.ids[start:stop], other)].sum() / 2)
    return float(np.mean(same)), float(np.mean(moved))


def npz_write(block: LogitBlock) -> bytes:
    file = io.BytesIO()
    np.savez(file, count=block.count, ids=block.ids, logprobs=block.logprobs, mass=block.mass)
    return file.getvalue()


def npz_read(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(io.BytesIO(data)) as arrays:
        return arrays["count"], arrays["ids"], arrays["logprobs"]


def packed_write(block: LogitBlock, vocabulary: int) -> bytes:
    width = (vocabulary - 1).bit_length()
    bits = (block.ids[:, None] >> np.arange(width)) & 1
    ids = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
    sizes = np.array([len(block.count), len(block.ids)], np.uint32)
    parts = (sizes, block.count.astype(np.uint8), block.mass, block.logprobs.astype(np.float16))
    return b"".join(part.tobytes() for part in parts) + ids


def packed_read(data: bytes, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = (vocabulary - 1).bit_length()
    positions, entries = np.frombuffer(data, np.uint32, 2)
    count = np.frombuffer(data, np.uint8, positions, 8)
    logprobs = np.frombuffer(data, np.float16, entries, 8 + 5 * int(positions)).astype(np.float32)
    packed = np.frombuffer(data, np.uint8, -1, 8 + 5 * int(positions) + 2 * int(entries))
    bits = np.unpackbits(packed, count=int(entries) * width).reshape(-1, width)
    return count, bits @ (1 << np.arange(width, dtype=np.int32)), logprobs


def parquet_write(block: LogitBlock) -> bytes:
    ends = np.concatenate(([0], np.cumsum(block.count.astype(np.int32)))).astype(np.int32)
    columns = {
        "ids": pa.ListArray.from_arrays(ends, pa.array(block.ids)),
        "logprobs": pa.ListArray.from_arrays(ends, pa.array(block.logprobs.astype(np.float16))),
        "mass": pa.array(block.mass),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    return file.getvalue()


def parquet_read(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = pq.read_table(io.BytesIO(data)).combine_chunks()
    ids, logprobs = (table[name].chunk(0) for name in ("ids", "logprobs"))
    return np.diff(ids.offsets.to_numpy()), ids.values.to_numpy(), logprobs.values.to_numpy()


if __name__ == "__main__":
    main()
