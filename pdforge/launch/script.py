"""The text that sbatch gets for a stage: of the stage, its profile and the code, and of nothing else."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import _make_sbatch_string

from pdforge.layout import StageDirectory
from pdforge.plan.model import Stage
from pdforge.plan.profile import Container, Profile
from pdforge.stages.entry import ARRAY_VARIABLE

_MIB = 2**20


@dataclass(frozen=True)
class Shape:
    """How a stage falls onto nodes."""

    nodes: int
    tasks_per_node: int
    array: int = 0
    """Tasks of a job array; 0: none."""


@dataclass(frozen=True)
class JobScript:
    """One job of a stage."""

    directory: StageDirectory
    title: str
    profile: Profile
    shape: Shape
    code: Path
    """Folder that holds the pdforge package to run."""
    root: Path
    """Storage root."""

    def text(self) -> str:
        """What sbatch gets, byte for byte."""
        profile, shape = self.profile, self.shape
        text: str = _make_sbatch_string(
            command=self._command(),
            folder=self.directory.scheduler,
            job_name=f"pdforge {self.title}",
            partition=profile.partition,
            account=profile.account,
            qos=profile.qos,
            constraint=profile.constraint,
            exclude=",".join(profile.exclude) or None,
            time=profile.walltime_minutes,
            nodes=shape.nodes,
            ntasks_per_node=shape.tasks_per_node,
            cpus_per_task=self._cpus_per_task(),
            gpus_per_node=profile.gpus_asked_for,
            mem=None if profile.memory is None else f"{-(-profile.memory // _MIB)}M",
            signal_delay_s=profile.signal_delay,
            wckey=None,
            stderr_to_stdout=True,
            setup=self._setup(),
            teardown=self._teardown(),
            additional_parameters=self._options(),
            srun_args=self._srun_arguments(),
        )
        if self.shape.array:  # submitit names the files of array tasks only for arrays that it makes itself
            return text.replace("%j_0_log.out", "%A_%a_0_log.out").replace("%j_%t_log.out", "%A_%a_%t_log.out")
        return text

    def _command(self) -> str:
        submit = ["-u", "-m", "submitit.core._submit", str(self.directory.scheduler)]
        container = self.profile.container
        if container is None:
            return shlex.join([sys.executable, *submit])
        python = [container.python, *submit]
        if container.runtime == "pyxis":
            return shlex.join(python)
        mounts = ["--bind", ",".join(self._mounts(container))]
        gpu = ["--nv"] if self.profile.device == "cuda" else []
        return shlex.join(["apptainer", "exec", *gpu, *mounts, container.image, *python])

    def _mounts(self, container: Container) -> list[str]:
        return [f"{self.root}:{self.root}", *container.mounts]

    def _cpus_per_task(self) -> int | None:
        cores = self.profile.cpus_per_node
        return None if cores is None else max(1, cores // self.shape.tasks_per_node)

    def _srun_arguments(self) -> list[str]:
        arguments = ["--kill-on-bad-exit=1", "--open-mode=append"]
        if cores := self._cpus_per_task():
            arguments.append(f"--cpus-per-task={cores}")  # srun takes it from sbatch no longer
        container = self.profile.container
        if container and container.runtime == "pyxis":
            arguments += [
                f"--container-image={container.image}",
                f"--container-mounts={','.join(self._mounts(container))}",
            ]
        return [*arguments, *self.profile.srun]

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            "export": "ALL",
            "chdir": str(self.directory.path),
        }
        if self.shape.array:
            options["array"] = f"0-{self.shape.array - 1}%{min(self.shape.array, self.profile.array_parallelism)}"
        return {**options, **{key: value for key, value in self.profile.sbatch.items() if value is not False}}

    def _setup(self) -> list[str]:
        exports = {"PYTHONPATH": str(self.code)}
        if cores := self._cpus_per_task():
            exports["OMP_NUM_THREADS"] = str(cores)
        if self.shape.array:
            exports[ARRAY_VARIABLE] = "1"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
        lines[0] += '"${PYTHONPATH:+:$PYTHONPATH}"'
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.profile.environment.items()]
        return ["umask 077", *lines, *self.profile.setup]

    def _teardown(self) -> list[str]:
        """Runs in the batch step, which outlives a rank that was killed: it decides on another start."""
        return [
            "pdforge_code=$?",
            "trap : TERM  # of the requeue: the end of this shell would be the end of what asks for it",
            f'{shlex.join([sys.executable, "-m", "pdforge.launch.after", str(self.directory.path)])} "$pdforge_code"',
            "",
        ]


def shape_of(stage: Stage, profile: Profile, *, array: bool = False) -> Shape:
    """How the stage falls onto nodes; of `array`, the shape of one task."""
    per_node = profile.processes_per_node
    if array:
        return Shape(1, per_node, profile.capture_tasks)
    if stage.processes == profile.processes:
        return Shape(profile.nodes, per_node)
    nodes = -(-stage.processes // per_node)
    if stage.processes % nodes:
        nodes = stage.processes
    return Shape(nodes, stage.processes // nodes)
