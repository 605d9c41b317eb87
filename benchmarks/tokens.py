"""Speed and memory of building a token store, against the `tokenizers` library alone, on one core.

    python benchmarks/tokens.py [--megabytes 64] [--json]

The text is the standard library's source, repeated with other words in it as often as it takes. Rates are bytes of text
a second of CPU time: the whole build (read, encode, hash, select, shuffle, pack, checksums) against `encode_batch_fast`
of the same documents, 200 at once. Memory is the largest resident set, mapped files included, of a process of its own
that builds a store of a quarter, half and all of the text.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pdforge.recipe.models import StandardLibraryCorpus, TrainedTokenizer
from pdforge.store.corpus import documents
from pdforge.store.encoder import tokenizer_json

BARS = {"share": 0.6, "memory": 1.15}
"""Of the library's own throughput; of the memory for a quarter of the text."""

LENGTH, VOCABULARY = 512, 8192

WHOLE = "all"
PARTS = {"quarter": 0.25, "half": 0.5, WHOLE: 1.0}
"""Of the text, by folder."""

_SETUP = """
import json, resource, sys, time
from pathlib import Path
from pdforge.recipe.models import JsonLinesCorpus, PretrainedTokenizer
from pdforge.store.corpus import documents
corpus = [JsonLinesCorpus(kind="jsonl", path=sys.argv[1] + "/*.jsonl")]
"""
_LIBRARY = """
import tokenizers
model = tokenizers.Tokenizer.from_file(sys.argv[2])
texts = list(documents(corpus))
start, tokens = time.process_time(), 0
for first in range(0, len(texts), 200):
    tokens += sum(len(one.ids) for one in model.encode_batch_fast(texts[first : first + 200], add_special_tokens=False))
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "tokens": tokens + len(texts), "bytes": sum(len(t.encode()) for t in texts)}))
"""
_BUILD = """
from pdforge.store.tokenize import build_token_store
start = time.process_time()
build_token_store(Path(sys.argv[3]), corpus=corpus, tokenizer=PretrainedTokenizer(path=sys.argv[2]),
    sequence_length=int(sys.argv[4]), train_sequences=int(sys.argv[5]), validation_sequences=10, seed=0, identity="b")
print(json.dumps({"seconds": time.process_time() - start,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64, help="text to build a store of")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.megabytes * 1_000_000)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        notes = [f"{name} {row[name]:.5g}" for name in ("baseline", "bar") if row[name] is not None]
        verdict = {True: "ok", False: "MISSED", None: ""}[row["ok"]]
        print(f"{row['name']:<48} {row['value']:>12.5g} {row['unit']:<16} {', '.join(notes):<34} {verdict}")


def measure(folder: Path, size: int) -> list[dict[str, Any]]:
    """Both rates on `size` bytes of text, and the memory for that, for half and for a quarter of it."""
    tokenizer, bytes_of = prepare(folder, size)
    library = run(_LIBRARY, folder / WHOLE, tokenizer)
    built = {}
    for part in PARTS:
        tokens = library["tokens"] * bytes_of[part] / bytes_of[WHOLE]
        built[part] = run(
            _BUILD, folder / part, tokenizer, folder / f"{part}-store", LENGTH, int(tokens * 0.95) // LENGTH
        )
    alone, whole = (library["bytes"] / taken["seconds"] / 1e6 for taken in (library, built[WHOLE]))
    memory = {part: built[part]["memory"] / 1e6 for part in PARTS}
    growth = memory[WHOLE] / memory["quarter"]
    unit = "MB/s, one core"
    return [
        row("tokenizers' encode_batch_fast", alone, unit),
        row("token store", whole, unit, baseline=alone),
        row("token store, of encode_batch_fast", whole / alone, "fraction", baseline=1.0, least=BARS["share"]),
        *(row(f"memory for {bytes_of[part] / 1e6:.0f} MB of text", memory[part], "MB") for part in PARTS),
        row("memory, of that for a quarter of the text", growth, "fraction", baseline=1.0, most=BARS["memory"]),
    ]


def row(
    name: str,
    value: float,
    unit: str,
    *,
    baseline: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> dict[str, Any]:
    """One line of the table."""
    bar = least if most is None else most
    ok = None if bar is None else value >= bar if most is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "bar": bar, "ok": ok}


def prepare(folder: Path, size: int) -> tuple[Path, dict[str, int]]:
    """Write the corpus and its starts, and a tokenizer trained on other text of the same kind; bytes of each part."""
    source = [StandardLibraryCorpus(kind="python-stdlib", bytes=8_000_000)]
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer_json(TrainedTokenizer(kind="trained", vocabulary=VOCABULARY), source))
    texts = list(documents(source))
    for part in PARTS:
        (folder / part).mkdir()
    written = dict.fromkeys(PARTS, 0)
    number = 0
    while written[WHOLE] < size:
        path = folder / WHOLE / f"{number:04d}.jsonl"
        changed = [text.replace("self", f"self{number}") for text in texts]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in changed))
        for part, share in PARTS.items():
            if written[part] < size * share:
                written[part] += sum(len(text.encode()) for text in changed)
                if share < 1:
                    (folder / part / path.name).hardlink_to(path)
        number += 1
    return tokenizer, written


def run(script: str, *arguments: object) -> dict[str, float]:
    """Run in a process of its own, with one thread; the figures it prints."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _SETUP + script, *map(str, arguments)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(printed)
    return figures


if __name__ == "__main__":
    main()
