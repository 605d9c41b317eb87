"""Nodes that failed: on record for each SLURM cluster below a storage root, and avoided by jobs for a while.

Evidence is what a post-mortem finds in attempts: a node that SLURM saw fail, a rank that gave no sign of life, an error
of the hardware. A node is avoided after `exclude_after` failures, until `exclude_for` after the last one, and never
where the job could not run without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pdforge.launch.cause import CauseKind
from pdforge.launch.failures import failed_attempts
from pdforge.launch.records import read_record
from pdforge.launch.scheduler import TIMEOUT_S, cluster_name
from pdforge.launch.submission import describe_submitter, latest_submission
from pdforge.layout import StageDirectory, node_failures, write_json
from pdforge.plan.profile import Profile


class NodeFailure(BaseModel):
    """One failure of a node under one attempt."""

    model_config = ConfigDict(frozen=True)

    node: str
    cause: CauseKind
    evidence: str
    """What was found, and where."""
    stage: str
    """Stage directory."""
    attempt: int
    started: float
    """When the attempt was started; unix seconds."""
    time: float
    """When it ended, as far as that is known; unix seconds."""
    lifted: str = ""
    """`user@host` who said since that the node is well; empty: nobody."""

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from other failures."""
        return self.node, self.stage, self.attempt


class NodeFailures(BaseModel):
    """The file: what is known of one cluster's nodes, oldest first."""

    model_config = ConfigDict(frozen=True)

    failures: list[NodeFailure] = []


@dataclass(frozen=True)
class Exclusion:
    """A node to avoid, and why."""

    node: str
    failures: list[NodeFailure]
    """Those that count, oldest first."""
    until: float
    """Unix seconds."""


def read_failures(root: Path, cluster: str) -> list[NodeFailure]:
    """What is on record of a cluster's nodes, oldest first."""
    record = read_record(node_failures(root, cluster), NodeFailures)
    return record.failures if record else []


def exclusions(failures: Sequence[NodeFailure], profile: Profile, now: float) -> list[Exclusion]:
    """The nodes that jobs of the profile avoid now."""
    found = []
    for node in dict.fromkeys(failure.node for failure in failures):
        counted: list[NodeFailure] = []
        for failure in sorted((one for one in failures if one.node == node and not one.lifted), key=lambda f: f.time):
            # several attempts that one event ended are one failure
            if not counted or failure.started >= counted[-1].time:
                counted.append(failure)
        last = counted[-profile.exclude_after :] if profile.exclude_after else []
        if not last or len(last) < profile.exclude_after or last[-1].time - last[0].time > profile.exclude_for:
            continue
        if now < (until := last[-1].time + profile.exclude_for):
            found.append(Exclusion(node, last, until))
    return found


def learn(stage: StageDirectory, cluster: str) -> None:
    """Put the nodes that failed under the stage's attempts, none of which runs any more, on record."""
    if not stage.all_attempts():
        return
    found = [
        NodeFailure(
            node=node,
            cause=attempt.cause.kind,
            evidence=attempt.cause.evidence,
            stage=str(stage.path),
            attempt=attempt.number,
            started=attempt.started,
            time=attempt.ended,
        )
        for attempt in failed_attempts(stage, running=False)
        for node in attempt.failed_nodes
    ]
    with _changing(stage.root, cluster) as failures:
        known = {failure.key for failure in failures}
        failures += [failure for failure in found if failure.key not in known]


def lift(root: Path, cluster: str, nodes: Sequence[str]) -> list[str]:
    """Say that nodes are well: what was held against them counts no more. The nodes of which something was."""
    lifted: list[str] = []
    with _changing(root, cluster) as failures:
        for number, failure in enumerate(failures):
            if failure.node in nodes and not failure.lifted:
                failures[number] = failure.model_copy(update={"lifted": describe_submitter()})
                lifted.append(failure.node)
    return list(dict.fromkeys(lifted))


def avoided(root: Path, profile: Profile, script: str, now: float) -> list[Exclusion]:
    """The nodes that a job with this script is to avoid; the scheduler is asked only where one has failed.

    Those whose time is over first are left out of them until sbatch would take the job.
    """
    if not node_failures(root, "").parent.is_dir() or (cluster := cluster_name()) is None:
        return []
    chosen = sorted(exclusions(read_failures(root, cluster), profile, now), key=lambda exclusion: exclusion.until)
    while chosen and not _would_run(script, excluded(profile, chosen)):
        chosen.pop(0)
    return chosen


def avoided_by_job(stage: StageDirectory) -> list[Exclusion]:
    """The same for the SLURM job of the stage that this process is part of, after looking at how earlier starts ended.

    Nothing here may keep a job from running: what cannot be read or understood is as if no node had failed.
    """
    cluster, submission = cluster_name(), latest_submission(stage)
    if cluster is None or submission is None:
        return []
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ["SLURM_JOB_ID"]
    try:
        learn(stage, cluster)
        script = (stage.scheduler / f"{job}_submission.sh").read_text(encoding="utf-8")
        return avoided(stage.root, submission.profile, script, time.time())
    except Exception as error:  # noqa: BLE001 - as said above
        print(f"pdforge: no node is avoided: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def excluded(profile: Profile, chosen: Sequence[Exclusion]) -> str:
    """For `--exclude`, which stands in place of what the script says: the profile's nodes and the chosen ones."""
    return ",".join(dict.fromkeys([*profile.exclude, *(exclusion.node for exclusion in chosen)]))


def describe(exclusion: Exclusion) -> str:
    """`2 failures (node, hang)`."""
    causes = ", ".join(dict.fromkeys(failure.cause for failure in exclusion.failures))
    return f"{len(exclusion.failures)} failure{'' if len(exclusion.failures) == 1 else 's'} ({causes})"


def _would_run(script: str, nodes: str) -> bool:
    command = ["sbatch", "--test-only", f"--exclude={nodes}"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False  # what cannot be told is not done
    return done.returncode == 0


@contextlib.contextmanager
def _changing(root: Path, cluster: str) -> Iterator[list[NodeFailure]]:
    """The failures on record, to be changed in place; written when the context ends, if they were."""
    file = node_failures(root, cluster)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_failures(root, cluster)
        failures = list(before)
        yield failures
        if failures != before:
            ordered = sorted(failures, key=lambda failure: failure.time)
            write_json(file, NodeFailures(failures=ordered).model_dump(mode="json"))
