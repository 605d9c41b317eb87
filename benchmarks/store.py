"""Size, fidelity and speed of the logit store on a real teacher's output, beside two plain formats, in one run.

    python benchmarks/store.py --data DIR [--json]

DIR holds, for S sequences of L positions: `indices.npy` and `logprobs.npy` [S, L, K] (falling probability), `count.npy`
and `mass.npy` [S, L], and `keptcount_train.npy` [vocabulary]: how often each id was kept on *other* text, for the rank
table. Values that are float16 flatter the codec `lossless`, which keeps float32: its row then says so.
Rates are tokens per second of CPU time on one core, the best of `--repeat` passes.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pdforge.store.codec import CODECS, LogitBlock, decode, encode
from pdforge.store.fidelity import divergence
from pdforge.store.logits import LogitSpec, LogitStore, LogitWriter
from pdforge.store.ranks import Ranks

BARS = {"bits": 12.0, "kl_mean": 4e-4, "kl_max": 1.2e-3, "decode": 250_000, "encode": 100_000}
"""Bits and KL: what docs/store.md promises. Rates: floors for one core."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a teacher's output")
    parser.add_argument("--repeat", type=int, default=5, help="passes of which the best counts")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok}")
    options = parser.parse_args()
    blocks, counts, width = load(options.data)
    rows = compare(blocks, counts, width, options.repeat) + through_the_store(blocks, counts, width, options.repeat)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        notes = [f"{name} {row[name]:.5g}" for name in ("baseline", "bar") if row[name] is not None]
        verdict = {True: "ok", False: "MISSED", None: ""}[row["ok"]]
        print(f"{row['name']:<62} {row['value']:>12.5g} {row['unit']:<20} {', '.join(notes):<34} {verdict}")


def load(folder: Path) -> tuple[list[LogitBlock], np.ndarray, int]:
    """Blocks, kept counts of other text, and K."""
    ids, logprobs, count, mass = (np.load(folder / f"{n}.npy") for n in ("indices", "logprobs", "count", "mass"))
    kept = np.arange(ids.shape[2]) < count[..., None]
    blocks = [
        LogitBlock(c.astype(np.uint16), i[k].astype(np.int32), p[k].astype(np.float32), m)
        for i, p, c, m, k in zip(ids, logprobs, count, mass, kept, strict=True)
    ]
    return blocks, np.load(folder / "keptcount_train.npy").astype(np.int64), ids.shape[2]


def row(
    name: str,
    value: float,
    unit: str,
    *,
    baseline: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
) -> dict[str, Any]:
    ok = value <= at_most if at_most is not None else value >= at_least if at_least is not None else None
    bar = at_most if at_most is not None else at_least
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "bar": bar, "ok": ok}


def rate(work: Callable[[], object], tokens: int, repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return tokens / best


def compare(blocks: list[LogitBlock], counts: np.ndarray, width: int, repeat: int) -> list[dict[str, Any]]:
    """Every codec, and the plain formats."""
    tokens, entries = sum(len(b.count) for b in blocks), sum(len(b.ids) for b in blocks)
    length, vocabulary = len(blocks[0].count), len(counts)
    rows = [row("entries kept a position", entries / tokens, "entries")]
    plain: dict[str, tuple[float, float]] = {}
    for name, write, read in (
        ("int32 + float32, npz", npz_write, npz_read),
        ("bit-packed ids + float16", lambda b: packed_write(b, vocabulary), lambda d: packed_read(d, vocabulary)),
    ):
        data = [write(block) for block in blocks]
        for block, one in zip(blocks, data, strict=True):
            assert np.array_equal(read(one)[1], block.ids)
        plain[name] = (8 * sum(map(len, data)) / entries, rate(lambda r=read, d=data: list(map(r, d)), tokens, repeat))
        rows.append(row(f"{name}: size", plain[name][0], "bits/entry"))
        rows.append(row(f"{name}: decode", plain[name][1], "tokens/s"))
    base_bits, base_rate = plain["bit-packed ids + float16"]
    ranks = Ranks.from_counts(counts)
    for name, codec in CODECS.items():
        bars = BARS if name == "rank-gap-63" else {}
        data = [encode(codec, ranks, block) for block in blocks]
        decoded = [decode(codec, ranks, d, length=length, width=width) for d in data]
        kl = np.concatenate([divergence(*pair) for pair in zip(blocks, decoded, strict=True)])
        fast = {
            "encode": rate(lambda c=codec: [encode(c, ranks, b) for b in blocks], tokens, repeat),
            "decode": rate(
                lambda c=codec, e=data: [decode(c, ranks, d, length=length, width=width) for d in e], tokens, repeat
            ),
        }
        bits = 8 * sum(map(len, data)) / entries
        half = all(np.array_equal(b.logprobs, b.logprobs.astype(np.float16)) for b in blocks)
        note = " (of float16 values)" if name == "lossless" and half else ""
        rows += [
            row(f"{name}{note}: size", bits, "bits/entry", baseline=base_bits, at_most=bars.get("bits")),
            row(f"{name}: mean KL", float(kl.mean()), "nats", at_most=bars.get("kl_mean")),
            row(f"{name}: worst KL", float(kl.max()), "nats", at_most=bars.get("kl_max")),
            row(f"{name}: encode", fast["encode"], "tokens/s", at_least=bars.get("encode")),
            row(f"{name}: decode", fast["decode"], "tokens/s", baseline=base_rate, at_least=bars.get("decode")),
        ]
    unordered = Ranks.from_counts(np.zeros(vocabulary, np.int64))
    bits = 8 * sum(len(encode(CODECS["rank-gap-63"], unordered, b)) for b in blocks) / entries
    return [*rows, row("rank-gap-63 without rank counts: size", bits, "bits/entry", baseline=base_bits)]


def through_the_store(blocks: list[LogitBlock], counts: np.ndarray, width: int, repeat: int) -> list[dict[str, Any]]:
    """A whole store on disk: what it takes, how fast samples come in random order, and what cutting again changes."""
    length, tokens = len(blocks[0].count), sum(len(b.count) for b in blocks)
    spec = LogitSpec(
        identity="benchmark",
        teacher="benchmark",
        tokens="benchmark",
        tokens_content="",
        tokenizer="",
        sequence_length=length,
        vocabulary=len(counts),
        top_p=0.95,
        top_k=width,
        sequences=len(blocks),
        shard_sequences=16,
        teacher_dtype="float32",
    )
    with tempfile.TemporaryDirectory() as folder:
        writer = LogitWriter(folder, spec, lambda: Ranks.from_counts(counts))
        for shard in writer.missing_shards():
            writer.write_shard(shard, blocks[shard * 16 : (shard + 1) * 16])
        size = writer.finish({}).bytes
        store = LogitStore.open(folder)
        order = np.random.default_rng(0).permutation(len(blocks))
        speed = rate(lambda: [store.get(int(sample)) for sample in order], tokens, repeat)
        same, moved = cut_again(store, blocks, 0.9, width // 2)
    return [
        row("store, shards and index: size", size / tokens, "bytes/token"),
        row("store, random samples: read", speed, "tokens/s", at_least=BARS["decode"]),
        row(f"cut again to top-0.9-{width // 2}: positions with the same ids", same, "fraction"),
        row(f"cut again to top-0.9-{width // 2}: mass on other ids", moved, "fraction"),
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


if __name__ == "__main__":
    main()
