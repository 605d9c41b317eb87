"""Does a cluster profile work? Asks the real scheduler, and looks at paths and secrets."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pdforge.launch.environment import missing_secrets
from pdforge.launch.exclusion import avoided, describe, exclusions, read_failures
from pdforge.launch.scheduler import cluster_name
from pdforge.launch.script import JobScript, Shape
from pdforge.layout import StageDirectory
from pdforge.plan.machine import Check
from pdforge.plan.profile import Profile, visible_gpus
from pdforge.text import moment

_TIMEOUT_S = 60


def check_profile(profile: Profile, root: Path) -> list[Check]:
    """Everything that can be looked at from here, for runs below `root`; nothing is submitted."""
    checks = [*_secrets(profile), _root(root)]
    if profile.executor == "local":
        return [*checks, *_local(profile)]
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel", "srun") if shutil.which(name) is None]
    if missing:
        remedy = "log in to a machine of the cluster"
        return [*checks, Check("scheduler", "missing", f"not found: {', '.join(missing)}", remedy)]
    script = _script(profile, root)
    return [
        *checks,
        _partition(profile),
        _test_only(script),
        _accounting(),
        *_nodes(profile, root, script),
        *_container(profile),
    ]


def _secrets(profile: Profile) -> list[Check]:
    missing = missing_secrets(profile)
    return [
        Check(f"secret {name}", "missing", "not set here", f"export {name}=… before submitting")
        if name in missing
        else Check(f"secret {name}", "ok", "set")
        for name in profile.secrets
    ]


def _root(root: Path) -> Check:
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        remedy = "choose another: `root:` in the profile, or --root"
        return Check("root", "missing", f"{root} cannot be written: {error.strerror}", remedy)
    return Check("root", "ok", f"{root} can be written from here")


def _local(profile: Profile) -> list[Check]:
    if profile.device == "cpu":
        return [Check("devices", "ok", f"{profile.processes} CPU processes")]
    there, wanted = visible_gpus(), profile.processes
    if absent := [gpu for gpu in profile.gpus if not Path(f"/dev/nvidia{gpu}").exists()]:
        return [Check("devices", "missing", f"no GPU {', '.join(map(str, absent))} here", "correct `gpus:`")]
    if there < wanted:
        return [Check("devices", "missing", f"{there} GPUs visible, {wanted} processes", "lower processes_per_node")]
    return [Check("devices", "ok", f"{there} GPUs visible")]


def _partition(profile: Profile) -> Check:
    said = _run(["sinfo", "-h", "-o", "%P"]).stdout.split()
    if profile.partition:  # or several, of which sbatch takes one
        known = {name.rstrip("*") for name in said}
        if unknown := [name for name in profile.partition.split(",") if said and name not in known]:
            return Check("partition", "missing", f"there is no {unknown[0]}", f"one of {', '.join(sorted(known))}")
        return Check("partition", "ok", profile.partition)
    default = next((name.rstrip("*") for name in said if name.endswith("*")), None)
    if default:
        return Check("partition", "ok", f"{default} (the scheduler's default)")
    return Check(
        "partition", "missing", "the scheduler has no default", f"write `partition:`, one of {', '.join(said)}"
    )


def _script(profile: Profile, root: Path) -> str:
    """Of a training job; the root need not be there yet."""
    shape = Shape(profile.nodes, profile.processes_per_node)
    script = JobScript(StageDirectory(root / "check"), "check", profile, shape, root, root)
    return script.text().replace(f"#SBATCH --chdir={root / 'check'}\n", "")


def _test_only(script: str) -> Check:
    """sbatch itself says whether it would take a training job, and when that would start."""
    done = _run(["sbatch", "--test-only"], script)
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    if done.returncode == 0:
        return Check("sbatch", "ok", said[-1].removeprefix("sbatch: ") if said else "accepted")
    why = said[-1].removeprefix("sbatch: ").removeprefix("error: ") if said else "refused"
    return Check("sbatch", "missing", why, "correct what it names in the profile")


def _accounting() -> Check:
    if _run(["sacct", "-n", "-X", "-o", "JobID"]).returncode == 0:
        return Check("accounting", "ok", "sacct answers")
    return Check("accounting", "absent", "sacct does not answer: how a job ended is told from its files only")


def _nodes(profile: Profile, root: Path, script: str) -> list[Check]:
    """Nodes that jobs avoid because they failed, and those that they would if they could run without."""
    cluster, now = cluster_name(), time.time()
    known = exclusions(read_failures(root, cluster), profile, now) if cluster else []
    kept = {exclusion.node for exclusion in avoided(root, profile, script, now)}
    checks = []
    for exclusion in known:
        until, node = moment(exclusion.until), exclusion.node
        what = f"avoided until {until}" if node in kept else "used, for the job could not run without it"
        remedy = f"why: pdforge clusters nodes {profile.name}; to use it: pdforge clusters lift {profile.name} {node}"
        checks.append(Check(f"node {node}", "absent", f"{what}: {describe(exclusion)}", remedy))
    return checks


def _container(profile: Profile) -> list[Check]:
    container = profile.container
    if container is None:
        return []
    is_file = "/" in container.image and "://" not in container.image and "#" not in container.image
    if is_file and not Path(container.image).exists():
        return [Check("container", "missing", f"{container.image} is not there", "correct `container.image`")]
    absent = [source for mount in container.mounts if not Path(source := mount.split(":", 1)[0]).exists()]
    checks = [Check("container", "ok", f"{container.image} ({container.runtime}; looked at where the job runs)")]
    # Nodes may have folders that a login node has not.
    return checks + [
        Check(f"mount {source}", "absent", "not on this machine", "the nodes need it; else correct `container.mounts`")
        for source in absent
    ]


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
