"""What sbatch gets, byte for byte. PDFORGE_UPDATE_GOLDEN=1 writes the files anew: read the difference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_plan, make_stage

from pdforge.launch import script
from pdforge.launch.graph import dry_run, stage_scripts
from pdforge.layout import StageDirectory
from pdforge.plan.profile import Container, Profile

GOLDEN = Path(__file__).parent / "golden"
ROOT, CODE = Path("/data/runs"), Path("/data/runs/count-a/code/0123456789abcdef")
TRAIN = make_stage("train a", "count-a/train")

PROFILES = {
    "cpu": Profile(name="cpu", executor="slurm", nodes=2, cpus_per_node=4),
    "gpu": Profile(
        name="gpu",
        executor="slurm",
        device="cuda",
        nodes=2,
        gpus_per_node=1,
        cpus_per_node=16,
        memory=64 * 2**30,
        walltime=90 * 60 + 1,
        signal_delay=300,
        partition="main",
        account="team",
        qos="high",
        constraint="a100",
        exclude=("n3", "n7"),
        setup=("module load cuda",),
        environment={"NCCL_DEBUG": "WARN", "GREETING": "it's"},
        secrets=("WANDB_API_KEY",),
        sbatch={"mail-type": "END", "exclusive": True, "oversubscribe": False},
        srun=("--mpi=none",),
        container=Container(image="team/image.sqsh", mounts=("/data:/data",)),
    ),
    "apptainer": Profile(
        name="apptainer",
        executor="slurm",
        device="cuda",
        nodes=2,
        container=Container(image="/images/train.sif", runtime="apptainer"),
    ),
    "array": Profile(name="array", executor="slurm", nodes=2, capture_tasks=8, array_parallelism=3),
}


@pytest.mark.parametrize("name", PROFILES)
def test_the_script_is_the_golden_one(name, monkeypatch):
    monkeypatch.setattr(script.sys, "executable", "/opt/python")
    stage = TRAIN.model_copy(update={"kind": "capture"}) if name == "array" else TRAIN
    jobs = stage_scripts(stage, StageDirectory(ROOT / stage.directory), PROFILES[name], CODE, ROOT)
    text = "\n".join(f"### job {number}\n{job.text()}" for number, job in enumerate(jobs, 1))
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("PDFORGE_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    for job in jobs:
        subprocess.run(["bash", "-n"], input=job.text(), text=True, check=True)


def test_a_value_is_one_word_to_the_shell():
    profile = PROFILES["cpu"].model_copy(update={"environment": {"X": "$(touch /tmp/pwned); 'a\" b"}})
    (job,) = stage_scripts(TRAIN, StageDirectory(ROOT / "it's/a $HOME"), profile, CODE, ROOT)
    line = next(line for line in job.text().splitlines() if line.startswith("export X="))
    said = subprocess.run(["bash", "-c", f'{line}; printf %s "$X"'], capture_output=True, text=True, check=True).stdout
    assert said == "$(touch /tmp/pwned); 'a\" b"


@pytest.mark.parametrize(
    ("update", "asked"),
    [
        ({}, ["--gpus-per-node=4"]),
        ({"gpus_per_node": 8}, ["--gpus-per-node=8"]),
        ({"device": "cpu"}, []),
        ({"sbatch": {"gres": "gpu:h100:4"}}, ["--gres=gpu:h100:4"]),
        ({"sbatch": {"gres": "nvme:1"}}, ["--gpus-per-node=4", "--gres=nvme:1"]),
        ({"sbatch": {"gpus": False}}, []),
    ],
)
def test_a_job_asks_for_a_gpu_for_each_process_unless_sbatch_says_how_they_come(update, asked):
    profile = Profile.model_validate(
        {"name": "g", "executor": "slurm", "device": "cuda", "processes_per_node": 4, **update}
    )
    (job,) = stage_scripts(TRAIN, StageDirectory(ROOT / "t"), profile, CODE, ROOT)
    options = [line.removeprefix("#SBATCH ") for line in job.text().splitlines() if line.startswith("#SBATCH")]
    assert [option for option in options if option.startswith(("--gpus", "--gres"))] == asked


def test_a_dry_run_names_every_job_in_order_and_writes_nothing(tmp_path):
    capture = make_stage("capture", "logits/a").model_copy(update={"kind": "capture"})
    train = make_stage("train a", "count-a/train", needs=(capture.key,))
    plan = make_plan("a", [capture, train]).model_copy(update={"profile": PROFILES["array"]})
    jobs = dry_run([plan], tmp_path)
    assert [(title, command[1:]) for title, command, _ in jobs] == [
        ("capture (array)", ["--hold"]),
        ("capture", ["--hold", "--dependency=afterok:<capture (array)>"]),
        ("train a", ["--hold", "--dependency=afterok:<capture>"]),
    ]
    assert sys.executable in jobs[0][2]
    assert not list(tmp_path.iterdir())
