"""Stages as SLURM jobs, through submitit: what this does not do is wait. SLURM keeps the order, restarts and limits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths

from pdforge.errors import EnvironmentFault
from pdforge.launch import task
from pdforge.launch.script import JobScript
from pdforge.launch.task import RankTask


class After(NamedTuple):
    """What a job waits for."""

    success: Sequence[str] = ()
    """Jobs whose results it reads."""
    end: Sequence[str] = ()
    """Jobs whose place it takes, however they end."""

    @property
    def options(self) -> list[str]:
        """For sbatch."""
        kinds = [
            f"{word}:{':'.join(jobs)}" for word, jobs in (("afterok", self.success), ("afterany", self.end)) if jobs
        ]
        return [f"--dependency={','.join(kinds)}"] if kinds else []


class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's SLURM executor for one job: its own script, held until it may run, after other jobs.

    Held: it must neither start before its pickle has its name, nor before it is known to be the one job of its stage.
    """

    def __init__(self, script: JobScript, after: After, avoided: str = "") -> None:
        """`avoided`: nodes, for `--exclude`."""
        super().__init__(script.directory.scheduler)
        self._script = script
        self._after = after
        self._avoided = avoided

    def submit_held(self) -> str:
        """The id of the job, which waits for `scontrol release`.

        Raises:
            EnvironmentFault: sbatch refused it; its own words.
        """
        self.update_parameters(nodes=self._script.shape.nodes, ntasks_per_node=self._script.shape.tasks_per_node)
        try:
            job = self.submit(RankTask(str(self._script.directory.path), task.ENTRY))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = str(error).strip().splitlines()
            raise EnvironmentFault(
                f"sbatch refused `{self._script.title}`: {said[-1] if said else error}",
                remedy=f"`pdforge clusters check {self._script.profile.name}` looks at the profile",
            ) from error
        identifier: str = job.job_id
        for number in range(self._script.shape.array):
            paths = JobPaths(folder=self.folder, job_id=f"{identifier}_{number}")
            shutil.copyfile(job.paths.submitted_pickle, paths.submitted_pickle)
        return identifier

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command, uid
        return self._script.text()

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["sbatch", *of_the_moment(self._after, self._avoided), str(submission_file_path)]


def of_the_moment(after: After, avoided: str = "") -> list[str]:
    """The options of sbatch that depend on the moment: everything else stands in the script."""
    return ["--hold", *after.options, *([f"--exclude={avoided}"] if avoided else [])]
