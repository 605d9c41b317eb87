"""How right and how quick a plan is.

    python benchmarks/plan.py [--repeat 61] [--root RUNS] [--quick] [--json]

A whole process counts in CPU time, which other work on the machine disturbs least: of the plan against importing the
libraries it is built on, in turns (`benchmarks/recipes.py`). Parameter counts are compared with the models that
torchtitan and transformers build, static memory with the deep check's tracker, and the tracker's peaks with those of
real steps of the quickstart's student (`benchmarks/_memory.py`).

With `--root`, what finished runs below it measured is compared with what a plan would have said: the size of each logit
store from its codec and from its first shard alone, and the wall-clock of each stage from the other runs of the same
work. `--quick` leaves out what builds trainings.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _processes import IMPORTS, processes, ratio

from pdforge.layout import LOGITS, StageDirectory
from pdforge.plan.jobs import CaptureJob
from pdforge.plan.measured import measure, read_measured
from pdforge.plan.measurement import Measured
from pdforge.plan.profile import local_profile
from pdforge.plan.shapes import shape_of
from pdforge.plan.storage import bytes_an_entry
from pdforge.recipe.load import load_recipes
from pdforge.recipe.sizes import parameter_count

PLAN = [sys.executable, "-m", "pdforge", "plan", "recipes/pd_star.yaml"]
DEEP = [sys.executable, "-m", "pdforge", "plan", "pd_star", "-v", "1.9b", "--cluster", "gpus", "--deep", "--json"]
CLUSTER = "gpus: {executor: slurm, device: cuda, nodes: 8, processes_per_node: 8, gpus_per_node: 8, gpu: H100}\n"
PROCESS_BAR = 1.8
"""Of a whole planning process, times importing the libraries."""
DEEP_SECONDS, DEEP_GB = 60.0, 8.0
STATIC_BAR, PEAK_BAR = 0.01, 0.10
BEFORE_BAR, FIRST_SHARD_BAR, WALL_BAR = 0.15, 0.02, 0.20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=61, help="runs of each process")
    parser.add_argument("--root", type=Path, help="a storage root with finished runs")
    parser.add_argument("--quick", action="store_true", help="build no trainings")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok}")
    options = parser.parse_args()
    rows = []
    for each in measurements(options):
        rows.append(each)
        if not options.json:
            print(line(each), flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))


def measurements(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All rows, as they are measured."""
    imports, plan = processes([IMPORTS, PLAN], options.repeat)
    yield row("plan pd_star, whole process, no torch", ratio(plan, imports), "× imports", 1.0, PROCESS_BAR)
    yield row("parameters that differ, five students", students(), "parameters", 0.0, 0.0)
    yield row("parameters that differ, GLM-4-9B", glm(), "parameters", 0.0, 0.0)
    if not options.quick:
        yield from deep()
        yield from memory()
    if options.root:
        yield from stores(options.root)
        yield from times(options.root)


def line(each: dict[str, Any]) -> str:
    verdict = {True: "ok", False: "MISSED", None: ""}[each["ok"]]
    bar = "" if each["bar"] is None else f"bar {each['bar']:g}"
    return f"{each['name']:<64} {each['value']:>8.3f} {each['unit']:<12} {bar:<9} {verdict}".rstrip()


def row(name: str, value: float, unit: str, baseline: float | None, bar: float | None) -> dict[str, Any]:
    ok = None if bar is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "baseline": baseline, "bar": bar, "ok": ok}


def students() -> float:
    """Sum of the differences from torchtitan's own models."""
    import torch  # noqa: PLC0415 - the rest needs none

    import pdforge.titan  # noqa: F401, PLC0415 - prepares torchtitan for this device
    from pdforge.titan.models import decoder_of  # noqa: PLC0415

    differ = 0
    for size in ("330m", "670m", "1.9b", "3.8b", "6.8b"):
        [loaded] = load_recipes("paper/sizes", variants=(f"{size}-lm",))
        shape, data = loaded.recipe.student.architecture, loaded.recipe.data
        with torch.device("meta"):
            model = decoder_of(shape, vocabulary=151_552, sequence_length=data.sequence_length).model.build()
        own = sum(parameter.numel() for parameter in model.parameters())
        differ += abs(own - parameter_count(shape, 151_552).total)
    return float(differ)


def glm() -> float:
    """Difference from transformers' own model; tests/plan/test_shapes.py compares the other bundled shapes."""
    import torch  # noqa: PLC0415 - as above
    from transformers import GlmConfig, GlmForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        model = GlmForCausalLM(GlmConfig())
    shape = shape_of("zai-org/glm-4-9b-hf")
    assert shape is not None
    return float(abs(sum(parameter.numel() for parameter in model.parameters()) - shape.parameters))


def deep() -> Iterator[dict[str, Any]]:
    """One `plan --deep`: processor time and memory of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "clusters.yaml").write_text(CLUSTER)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(DEEP, cwd=folder, check=False, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    [built] = json.loads(done.stdout)["deep"]
    if built["error"]:
        raise RuntimeError(built["error"])
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield row("plan --deep, 1.9B at 64 processes, processor time", seconds, "s", None, DEEP_SECONDS)
    yield row("plan --deep, 1.9B at 64 processes, largest process", after.ru_maxrss * 1024 / 1e9, "GB", None, DEEP_GB)


def memory() -> Iterator[dict[str, Any]]:
    """Arithmetic against the tracker, and the tracker against real tensors."""
    from _memory import QUICKSTART, SPREAD, peaks_off, static_off  # noqa: PLC0415 - builds trainings

    name = f"static memory against the tracker, worst of {len(SPREAD)} ways to spread"
    yield row(name, static_off(), "off", None, STATIC_BAR)
    worst, median = peaks_off()
    yield row(f"peak of the tracker against a real step, worst of {len(QUICKSTART)}", worst, "off", None, PEAK_BAR)
    yield row("the same, median", median, "off", None, None)


def stores(root: Path) -> Iterator[dict[str, Any]]:
    """Sizes of the finished logit stores, in parts of what they are."""
    for path in sorted((root / LOGITS).glob("*")):
        found = measure(stage := StageDirectory(path), local_profile())
        if found is None or not found.bytes_an_entry or not found.bytes:
            continue
        job = CaptureJob.model_validate_json(stage.job_json.read_bytes())
        entry = bytes_an_entry(job.codec, job.teacher.vocabulary) / found.bytes_an_entry
        yield row(f"bytes an entry before any shard, store {path.name}", abs(entry - 1), "off", None, BEFORE_BAR)
        first = (stage.output / "shard-000000.bin").stat().st_size
        whole = first / min(job.shard_sequences, job.sequences) * job.sequences
        yield row(
            f"bytes after the first shard, store {path.name}",
            abs(whole / found.bytes - 1),
            "off",
            None,
            FIRST_SHARD_BAR,
        )


def times(root: Path) -> Iterator[dict[str, Any]]:
    """Wall-clock of stages whose work was done by other runs too, from those alone."""
    known = [each for each in read_measured(root) if each.seconds]
    errors: dict[str, list[float]] = {}
    for each in known:
        others = [other for other in known if other is not each and other.work == each.work]
        if each.seconds and each.tokens and (expected := _expected(each, others)):
            errors.setdefault(each.kind, []).append(abs(expected / each.seconds - 1))
    for kind, off in errors.items():
        name = f"wall-clock of {kind}, each of {len(off)} from the others, median"
        yield row(name, statistics.median(off), "off", None, WALL_BAR)


def _expected(each: Measured, others: list[Measured]) -> float | None:
    rates = [other.tokens_per_second for other in others if other.processes == each.processes]
    starts = [other.overhead for other in others if other.overhead is not None]
    known = [rate for rate in rates if rate]
    if not known or not each.tokens:
        return None
    return (statistics.median(starts) if starts else 0.0) + each.tokens / statistics.median(known)


if __name__ == "__main__":
    main()
