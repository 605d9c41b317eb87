"""Speed and memory of building a token store, against the `tokenizers` library alone, on one core.

    python benchmarks/tokens.py [--megabytes 48] [--json]

The text is the standard library's source, repeated with other words in it as often as it takes. Rates are bytes of text
a second of CPU time: the whole build (read, encode, hash, select, shuffle, pack, checksums) against `encode_batch_fast`
of the same documents, 200 at once. Memory is the largest resident set of a process of its own.
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
"""Of the library's own throughput; of the memory for half the text."""

LENGTH, VOCABULARY = 512, 8192

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
    parser.add_argument("--megabytes", type=int, default=48, help="text to build a store of")
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
    """Both rates on `size` bytes of text, and the memory for that and for half of it."""
    tokenizer = prepare(folder, size)
    library = run(_LIBRARY, folder / "all", tokenizer)
    built = run(_BUILD, folder / "all", tokenizer, folder / "a", LENGTH, int(library["tokens"] * 0.98) // LENGTH - 30)
    part = run(_LIBRARY, folder / "half", tokenizer)
    small = run(_BUILD, folder / "half", tokenizer, folder / "b", LENGTH, int(part["tokens"] * 0.98) // LENGTH - 30)
    alone, whole = library["bytes"] / library["seconds"] / 1e6, library["bytes"] / built["seconds"] / 1e6
    share, growth = whole / alone, built["memory"] / small["memory"]
    unit = "MB/s, one core"
    return [
        {
            "name": "tokenizers' encode_batch_fast",
            "value": alone,
            "unit": unit,
            "baseline": None,
            "bar": None,
            "ok": None,
        },
        {"name": "token store", "value": whole, "unit": unit, "baseline": alone, "bar": None, "ok": None},
        {
            "name": "token store, of encode_batch_fast",
            "value": share,
            "unit": "fraction",
            "baseline": 1.0,
            "bar": BARS["share"],
            "ok": share >= BARS["share"],
        },
        {
            "name": f"memory for {library['bytes'] / 1e6:.0f} MB of text",
            "value": built["memory"] / 1e6,
            "unit": "MB",
            "baseline": small["memory"] / 1e6,
            "bar": None,
            "ok": None,
        },
        {
            "name": "memory, of that for half the text",
            "value": growth,
            "unit": "fraction",
            "baseline": 1.0,
            "bar": BARS["memory"],
            "ok": growth <= BARS["memory"],
        },
    ]


def prepare(folder: Path, size: int) -> Path:
    """Write the corpus (`all`, and its first half) and a tokenizer trained on other text of the same kind."""
    source = [StandardLibraryCorpus(kind="python-stdlib", bytes=8_000_000)]
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer_json(TrainedTokenizer(kind="trained", vocabulary=VOCABULARY), source))
    texts = list(documents(source))
    for name in ("all", "half"):
        (folder / name).mkdir()
    written = number = 0
    while written < size:
        path = folder / "all" / f"{number:04d}.jsonl"
        with path.open("w") as file:
            for text in texts:
                changed = text.replace("self", f"self{number}")
                file.write(json.dumps({"text": changed}) + "\n")
                written += len(changed.encode())
        if written <= 0.55 * size:
            (folder / "half" / path.name).hardlink_to(path)
        number += 1
    return tokenizer


def run(script: str, *arguments: object) -> dict[str, float]:
    """Run in a process of its own, with one thread; the figures it prints."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _SETUP + script, *map(str, arguments)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(printed)
    return figures


if __name__ == "__main__":
    main()
