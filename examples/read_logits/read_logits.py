"""Read a logit store with numpy and zstandard alone: a second implementation of the format in docs/store.md.

`python read_logits.py STORE SAMPLE` prints how many ids each position keeps, and the most probable ones.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import zstandard

LEVELS = {"rank-gap-63": 63, "rank-gap-127": 127, "context-40": 40, "context-63": 63}
COLUMNS = {"entropy": "<f2", "standard_deviation": "<f2", "logsumexp": "<f4", "label_logprob": "<f2"}


def blocks(path):
    data = path.read_bytes()
    (offset,) = struct.unpack_from("<Q", data, len(data) - 32)
    sizes = np.frombuffer(data, "<u4", *struct.unpack_from("<I", data, offset), offset + 4)
    return [data[end - size : end] for end, size in zip(16 + np.cumsum(sizes, dtype=int), sizes, strict=True)]


def joined(planes, width):
    return sum(next(planes).astype(int) << 8 * i for i in range(width))


def read(store, sample):
    """A list with (ids, probabilities) of each position, in the order of the rank table, and the optional columns."""
    spec = json.loads((store / "manifest.json").read_text())["content"]
    tables = np.frombuffer(blocks(store / "ranks.bin")[0], "<i4").reshape(-1, spec["vocabulary"])
    shard, number = divmod(sample, spec["shard_sequences"])
    data = blocks(store / f"shard-{shard:06d}.bin")[number]
    codec, levels = spec["codec"], LEVELS.get(spec["codec"])
    gap_width = 1 if spec["vocabulary"] <= 1 << 8 else 2 if spec["vocabulary"] <= 1 << 16 else 3
    width = {"lossless": 4, "rank-gap-float16": 2, "sampled": 2}.get(codec, 1)
    n = 2 + codec.startswith("context") + bool(levels) + width + gap_width + len(spec["columns"])
    sizes = struct.unpack_from(f"<{n}I", data, 8)
    spans = zip(8 + 4 * n + np.cumsum(sizes), sizes, strict=True)
    planes = (np.frombuffer(zstandard.decompress(data[e - s : e], 1 << 31), np.uint8) for e, s in spans)
    count = next(planes).astype(int) + 1
    table, mass = next(planes) if codec.startswith("context") else 0 * count, next(planes)
    code = np.repeat(next(planes), count) - next(planes) if levels else joined(planes, width)
    stops, gap, rows = np.cumsum(count), joined(planes, gap_width), []
    for t, start, stop, m in zip(table, stops - count, stops, mass if levels else mass.view("<f4"), strict=True):
        if levels:
            p = (1 - code[start:stop] / levels) ** 4
            p *= (1 if m == 255 else 1 / (1 + np.exp(14 - m * (30 / 254)))) / p.sum()
        elif codec == "sampled":
            p = (0xFFFF - code[start:stop]) / (0xFFFF - code[start:stop]).sum()
        else:
            p = np.exp(-code[start:stop].astype(f"u{width}").view(f"f{width}").astype(float))
        rows.append((tables[t][np.cumsum(gap[start:stop] + 1) - 1], p))
    return rows, {name: next(planes).view(COLUMNS[name]) for name in spec["columns"]}


if __name__ == "__main__":
    for ids, p in read(Path(sys.argv[1]), int(sys.argv[2]))[0]:
        print(len(ids), *(f"{ids[i]}:{p[i]:.4f}" for i in np.argsort(-p, kind="stable")[:5]))
