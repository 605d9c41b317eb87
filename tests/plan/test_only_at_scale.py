"""Configurations that work on one process and fail at scale: each is refused before anything is submitted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pdforge.diagnostics import Severity
from pdforge.errors import PdforgeError
from pdforge.plan.advice import place_advice
from pdforge.plan.build import make_plans
from pdforge.plan.profile import Profile
from pdforge.recipe.load import load_recipes
from tests.cli.pdforge_process import pdforge

H100 = Profile(name="h100", executor="slurm", device="cuda", nodes=2, processes_per_node=4, gpu="H100")
"""Eight GPUs."""

WRONG = {
    "heads do not divide by tensor": (["training.parallelism.tensor=8"], "does not divide heads (4)"),
    "kv_heads do not divide by tensor": (
        ["training.parallelism.tensor=4", "student.architecture.kv_heads=2"],
        "kv_heads (2)",
    ),
    "the vocabulary does not divide by tensor": (
        ["training.parallelism.tensor=2", "data.tokenizer.vocabulary=301"],
        "the vocabulary (301)",
    ),
    "the feed-forward network does not divide by tensor": (
        ["training.parallelism.tensor=4", "student.architecture.ffn=66"],
        "ffn (66)",
    ),
    "tied embeddings in a pipeline": (
        ["training.parallelism.pipeline=2", "student.architecture.tied_embeddings=true"],
        "ties its embeddings",
    ),
    "more pipeline stages than layers": (
        ["training.parallelism.pipeline=4", "training.batch.micro=4"],
        "4 pipeline stages for 2 layers",
    ),
    "a micro batch that the pipeline cannot take": (
        ["training.parallelism={pipeline: 2, pipeline_microbatch: 2}", "training.batch={global: 12, micro: 3}"],
        "micro 3 is no multiple of 2",
    ),
    "a sequence that context parallelism cannot cut": (
        ["training.parallelism.context=2"],
        "sequence_length must be a multiple of 512",
    ),
    "processes that the degrees do not make up": (
        ["training.parallelism.context=3", "data.sequence_length=768", "training.loss_chunks=1"],
        "8 processes cannot be divided",
    ),
    "a global batch that the processes do not divide": (["training.batch={global: 12, micro: 2}"], "do not divide"),
    "a micro batch too large for the memory": (
        ["training.batch={global: 8192, micro: 1024}", "student.architecture={hidden: 2048, ffn: 8192, layers: 32}"],
        "micro batch 1024",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_is_refused_with_a_way_out(name: str, recipe: Path, tmp_path: Path) -> None:
    overrides, said = WRONG[name]
    tokens = ["data.train_tokens=20M", "training.tokens=10M"]
    refused = _refusals(recipe, [*tokens, *overrides], tmp_path)
    assert any(said in message for message, _ in refused), refused
    assert all(remedy for _, remedy in refused), refused


@pytest.mark.parametrize("name", WRONG)
def test_none_reaches_the_scheduler(name: str, recipe: Path, tmp_path: Path) -> None:
    """`submit` as a process, with an `sbatch` that would tell of a job."""
    overrides, said = WRONG[name]
    told = tmp_path / "told"
    for command in ("sbatch", "srun", "sinfo", "scontrol"):
        program = tmp_path / "bin" / command
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {command} >> {told}\nexit 1\n")
        program.chmod(0o755)
    config = tmp_path / "pdforge" / "clusters.yaml"
    config.parent.mkdir()
    config.write_text("h100: {executor: slurm, nodes: 2, device: cuda, processes_per_node: 4, gpu: H100}\n")
    chosen = [f"--set={each}" for each in ("data.train_tokens=20M", "training.tokens=10M", *overrides)]
    refused = pdforge(
        *("submit", str(recipe), "--variant", "lm", "--cluster", "h100", "--root", str(tmp_path / "runs"), *chosen),
        XDG_CONFIG_HOME=str(tmp_path),
        PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    )
    assert refused.returncode in (1, 2), refused.stdout
    assert said in " ".join(refused.stderr.split()), refused.stderr
    assert not told.exists()
    assert not (tmp_path / "runs").exists()


def test_the_same_recipe_without_a_mistake_is_planned(recipe: Path, tmp_path: Path) -> None:
    tokens = ["data.train_tokens=20M", "training.tokens=10M", "training.batch={global: 16, micro: 2}"]
    assert _refusals(recipe, tokens, tmp_path) == []


def _refusals(recipe: Path, overrides: list[str], root: Path) -> list[tuple[str, str]]:
    """(message, way out) of everything for which `plan` and `submit` refuse."""
    try:
        loaded = load_recipes(str(recipe), variants=("lm",), overrides=overrides)
        plans = make_plans(loaded, H100, root)
        found = place_advice(plans, loaded, root)
    except PdforgeError as error:
        diagnostics = getattr(error, "diagnostics", None)
        if diagnostics is None:
            return [(error.message, error.remedy)]
        found = diagnostics
    return [(each.message, each.help or "") for each in found if each.severity is Severity.ERROR]
