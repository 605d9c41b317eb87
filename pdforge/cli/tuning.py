"""What `pdforge tune` does once its options are read: plans, searches, and checks each proposal as a plan."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pdforge.cli.render.plan_text import page_text
from pdforge.cli.render.sections import Column, Row, Section, Table
from pdforge.cli.render.text import Paint
from pdforge.diagnostics import Severity
from pdforge.errors import PdforgeError, UsageError
from pdforge.layout import StageDirectory
from pdforge.plan.advice import place_advice
from pdforge.plan.build import make_plans
from pdforge.plan.clusters import find_profile
from pdforge.plan.content import written_fingerprint
from pdforge.plan.duration import Rate, device_rate
from pdforge.plan.jobs import TrainJob
from pdforge.plan.measured import read_measured
from pdforge.plan.model import Plan, Stage
from pdforge.plan.profile import Profile
from pdforge.plan.tune import Candidate, Tuned, tune
from pdforge.recipe.load import LoadedRecipe, load_recipes
from pdforge.recipe.rules.parts import trainings

__all__ = ["Asked", "Found", "find_profile", "plannable", "to_json", "to_text", "tune_recipe"]

_WIDTH = 100
_GIB = float(1 << 30)
_NO_RATE = Rate(1.0, "", 1.0, 0.0)
"""Where no rate is known, times have no unit: they still compare."""


class Asked(NamedTuple):
    """What the command was asked for."""

    recipe: str
    overrides: tuple[str, ...]
    profile: Profile
    root: Path
    cluster: str
    processes: int | None
    root_named: Path | None
    """The root as it was asked for; None: it was not."""
    obstacle: str = ""
    """Why the recipe cannot be planned as it is; then `overrides` make every micro batch 1."""


class Found(NamedTuple):
    """One training, tuned."""

    stage: Stage
    variant: str | None
    tuned: Tuned
    source: str
    """Of the rate that devices reach; empty: unknown, and times have no unit."""
    deep: str
    """What the deep check says of the first proposal; empty: it was not asked for."""
    faults: tuple[str, ...]
    """What it found wrong."""


def plannable(asked: Asked, variants: list[str]) -> Asked:
    """The same, or where the profile does not divide the recipe's batches, from micro batches of 1 on.

    Raises:
        PdforgeError: it cannot be planned so either.
    """
    loaded = load_recipes(asked.recipe, variants=variants, overrides=asked.overrides)
    try:
        _plans(asked, loaded)
    except UsageError as error:
        places = dict.fromkeys(part.path for one in loaded for part in trainings(one.recipe))
        smallest = tuple(f"{place}.batch.micro=1" for place in places)
        other = asked._replace(overrides=(*asked.overrides, *smallest), obstacle=error.message)
        try:
            _plans(other, load_recipes(asked.recipe, variants=variants, overrides=other.overrides))
        except PdforgeError:
            raise error from None
        return other
    return asked


def tune_recipe(asked: Asked, variants: list[str], *, most: int, deep: bool) -> list[Found]:
    """Tune every training of a recipe's runs that is not done, each once.

    Raises:
        PdforgeError: the recipe cannot be planned, or the profile does not say what its GPUs are.
    """
    found: dict[str, Found] = {}
    loaded = load_recipes(asked.recipe, variants=variants, overrides=asked.overrides)
    measured = read_measured(asked.root)
    for one, plan in zip(loaded, _plans(asked, loaded), strict=True):
        for stage in plan.stages:
            if stage.key in found or not isinstance(stage.job, TrainJob):
                continue
            if StageDirectory(asked.root / stage.directory).done.is_file():
                continue
            rate = device_rate(stage, asked.profile, measured)
            tuned = tune(stage.job, one.recipe, asked.profile, rate or _NO_RATE, most=most)
            plans = {each.words: _proposed(asked, one, plan, each) for each in tuned.best}
            said, faults = _deep(plans[tuned.best[0].words], stage) if deep and tuned.best else ("", ())
            found[stage.key] = Found(stage, one.variant, tuned, rate.source if rate else "", said, faults)
    return list(found.values())


def _plans(asked: Asked, loaded: Sequence[LoadedRecipe]) -> list[Plan]:
    return make_plans(loaded, asked.profile, asked.root, fingerprint_of=written_fingerprint)


def _proposed(asked: Asked, one: LoadedRecipe, plan: Plan, candidate: Candidate) -> Plan:
    """The plan of the run with a proposal, loaded and planned as a user would: a proposal never changes a result."""
    overrides = [*asked.overrides, *candidate.words]
    loaded = load_recipes(asked.recipe, variants=[one.variant] if one.variant else [], overrides=overrides)
    [proposed] = _plans(asked, loaded)
    assert proposed.hash == plan.hash, f"{candidate.words} change what the run computes"
    assert [stage.key for stage in proposed.stages] == [stage.key for stage in plan.stages]
    errors = [each for each in place_advice([proposed], loaded, asked.root) if each.severity is Severity.ERROR]
    mine = [each for each in errors if (each.field or "").startswith(candidate.job.place)]
    assert not mine, f"{candidate.words} are refused: {mine[0].message}"
    return proposed


def _deep(plan: Plan, stage: Stage) -> tuple[str, tuple[str, ...]]:
    from pdforge.launch.deep import findings, look_at  # noqa: PLC0415 - for this option only

    alone = plan.model_copy(update={"stages": [each for each in plan.stages if each.key == stage.key]})
    [looked] = look_at([alone])
    return looked.line(), tuple(f"{each.message}; {each.help}" for each in findings([looked], alone))


def to_json(found: Sequence[Found]) -> str:
    """For programs."""
    return json.dumps([_figures(each) for each in found], indent=1, ensure_ascii=False) + "\n"


def _figures(found: Found) -> dict[str, object]:
    tuned = found.tuned

    def candidate(each: Candidate) -> dict[str, object]:
        training = each.job.training
        return {
            "set": list(each.words),
            "parallelism": training.parallelism.model_dump(mode="json"),
            "micro": training.batch.micro,
            "loss_chunks": training.loss_chunks,
            "activation_checkpointing": training.activation_checkpointing,
            "seconds": each.time.total if found.source else None,
            "relative": each.time.total / tuned.asked.time.total,
            "parts": each.time._asdict() if found.source else None,
            "memory": each.memory.total,
        }

    return {
        "stage": found.stage.key,
        "title": found.stage.title,
        "variant": found.variant,
        "throughput": found.source or None,
        "asked": {**candidate(tuned.asked), "fits": tuned.asked_fits},
        "proposals": [candidate(each) for each in tuned.best],
        "refused": [{"reason": each.reason, "settings": each.settings} for each in tuned.refusals],
        "nearest": candidate(tuned.nearest) if tuned.nearest else None,
        "deep": found.deep or None,
        "faults": list(found.faults),
    }


def to_text(found: Sequence[Found], asked: Asked) -> str:
    """For people."""
    profile = asked.profile
    gpu = f" of {profile.gpu}" if profile.gpu else ""
    heading = [f"profile {profile.name}: {profile.processes} {profile.device.upper()} processes{gpu}"]
    if asked.obstacle:
        heading.insert(0, f"searched from micro batches of 1: {asked.obstacle}")
    sections = [section for each in found for section in _sections(each, asked)]
    if not sections:
        sections = [Section("every training is done: there is nothing to tune")]
    page = page_text(f"tune {asked.recipe}", heading, sections, Paint.of(sys.stdout), _WIDTH)
    return page + "".join(_command(each, asked) for each in found if _changes(each, asked))


def _sections(found: Found, asked: Asked) -> Iterator[Section]:
    tuned = found.tuned
    offered = asked.profile.memory_of_a_gpu if asked.profile.device == "cuda" else None
    shown = [
        ("micro 1" if asked.obstacle else "as it is", tuned.asked),
        *((str(number), each) for number, each in enumerate(tuned.best, start=1)),
    ]
    if tuned.nearest:
        shown.append(("nearest", tuned.nearest))
    names = ("data", "tensor", "context", "pipeline", "micro", "chunks", "recompute", "GiB", "step")
    columns = (
        Column(found.stage.title),
        *(Column(name, right=name != "recompute") for name in names),
        *([Column("relative", right=True)] if found.source else []),
    )
    rows = tuple(Row((label, *_cells(each, found, offered)), strong=label == "1") for label, each in shown)
    yield Section(found.stage.title, table=Table(columns, rows), notes=tuple(_notes(found, asked, offered)))


def _cells(each: Candidate, found: Found, offered: int | None) -> tuple[str, ...]:
    training = each.job.training
    spread = training.parallelism
    model = spread.tensor * spread.context * spread.pipeline
    relative = f"{100 * each.time.total / found.tuned.asked.time.total:.0f} %"
    shards = each.job.processes // model // spread.data_replicate
    return (
        f"{shards}×{spread.data_replicate}" if spread.data_replicate > 1 else str(shards),
        *(str(degree) for degree in (spread.tensor, spread.context, spread.pipeline)),
        str(training.batch.micro),
        str(training.loss_chunks),
        training.activation_checkpointing,
        f"{each.memory.total / _GIB:.1f}" if offered else "–",
        *((f"{each.time.total:.3g} s", relative) if found.source else (relative,)),
    )


def _notes(found: Found, asked: Asked, offered: int | None) -> Iterator[str]:
    tuned = found.tuned
    yield "data: shards × replicas; recompute: activation checkpointing; GiB and seconds a step are estimates"
    if offered:
        start, fits = "so" if asked.obstacle else "as it is", "fits" if tuned.asked_fits else "does not fit"
        yield f"{start} it {fits}: {tuned.asked.memory.total / _GIB:.1f} of a GPU's {offered / _GIB:.1f} GiB"
    if found.source:
        yield f"products: {found.source}"
    if asked.profile.device == "cuda" and asked.profile.link_of_a_gpu is None:
        yield "bandwidth unknown: what GPUs send is not counted; say `link` and `network` in the profile"
    if tuned.best:
        yield from _of_the_best(found.tuned)
    elif tuned.nearest and offered:
        lacking = tuned.nearest.memory.total - 0.95 * offered
        yield f"nothing fits: the nearest lacks {lacking / _GIB:.1f} GiB a GPU; take more GPUs, or larger ones"
    else:
        yield "nothing divides the batch and the model over these processes"
    for refusal in tuned.refusals[:4]:
        yield f"refused, {refusal.settings} settings: {refusal.reason}"
    if found.deep:
        yield f"deep check of {found.deep}"
    yield from found.faults


def _of_the_best(tuned: Tuned) -> Iterator[str]:
    best = tuned.best[0]
    if not best.words:
        yield "✓ nothing to gain: no other setting that fits is estimated to be quicker by more than 2 %"
        return
    changes = [
        f"{name} {value:+.0f} %"
        for name, value in (
            (name, 100 * (new - old) / tuned.asked.time.total)
            for name, new, old in zip(best.time._fields, best.time, tuned.asked.time, strict=True)
        )
        if abs(value) >= 0.5
    ]
    if not tuned.asked_fits:
        yield "why 1: it fits" + (f"; of the step as it is: {', '.join(changes)}" if changes else "")
    elif changes:
        yield f"why 1, in parts of the step as it is: {', '.join(changes)}"


def _changes(found: Found, asked: Asked) -> bool:
    best = found.tuned.best
    return bool(best and (best[0].words or asked.obstacle))


def _command(found: Found, asked: Asked) -> str:
    """What applies the first proposal, in lines that a shell takes as one."""
    options: list[tuple[str, object]] = [("--variant", found.variant), ("--cluster", asked.cluster)]
    options += [("--processes", asked.processes), ("--root", asked.root_named)]
    options += [("--set", word) for word in (*asked.overrides, *found.tuned.best[0].words)]
    parts = [f"{name} {shlex.quote(str(value))}" for name, value in options if value is not None]
    command = " \\\n    ".join([f"pdforge plan {shlex.quote(asked.recipe)}", *parts])
    return f"\napply 1 to {found.stage.title}:\n  {command}\n"
