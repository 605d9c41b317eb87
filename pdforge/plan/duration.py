"""How long a stage takes, from what is known of it: measurements first, an assumed utilisation last, else unknown."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from pdforge.plan.estimate import model_flops_per_token
from pdforge.plan.jobs import TrainJob
from pdforge.plan.measured import work_of
from pdforge.plan.model import Stage
from pdforge.plan.profile import Profile
from pdforge.plan.step_time import step_time

if TYPE_CHECKING:
    from pdforge.plan.measurement import Measured

_SAME = 1.2
"""Band of a measurement of the same work: what one run differs from the next, on a machine that others use too."""
_SCALED = 1.6
"""Band of a rate of FLOPs that was measured on other work."""
_ASSUMED = 1.6
"""Band of an assumed utilisation: 0.35 may then be 0.22 or 0.56, between which large published runs lie."""
_TRAINING = ("train", "pretrain-teacher", "finetune")


class Duration(NamedTuple):
    """Wall-clock seconds of a stage."""

    seconds: float
    low: float
    high: float
    source: str
    start: float = 0.0
    """Of it, what every start costs before the first token, as far as it was measured."""


def estimate_duration(
    stage: Stage, tokens: int | None, profile: Profile, measured: Sequence["Measured"]
) -> Duration | None:
    """Wall-clock time of a stage on a profile; None: unknown."""
    if tokens is None:
        return None
    here = [each for each in measured if each.profile == profile.name and each.tokens_per_second]
    work, processes = work_of(stage.job), profile.at_once(stage.kind, stage.processes)
    same = [each for each in here if each.work == work and each.processes == processes]
    if same:
        return _same_work(tokens, same)
    known = device_rate(stage, profile, measured)
    if known is None or (seconds := _seconds(stage, tokens, profile, known.flops)) is None:
        return None
    return _band(seconds, known.band, known.source, known.start)


class Rate(NamedTuple):
    """What one device reaches."""

    flops: float
    """FLOP/s of its products."""
    source: str
    band: float
    start: float
    """Seconds of every start, as far as they were measured."""


def device_rate(stage: Stage, profile: Profile, measured: Sequence["Measured"]) -> Rate | None:
    """What a device of a profile reaches in a stage, from other work or assumed; None: unknown."""
    device = getattr(stage.job, "device", "cpu")
    alike = [each for each in measured if each.device == device and _alike(each.kind, stage.kind)]
    for source, group in (
        (f"measured on {profile.name}", [each for each in alike if each.profile == profile.name]),
        (
            f"measured on another cluster's {profile.gpu}",
            [each for each in alike if profile.gpu and each.gpu == profile.gpu],
        ),
    ):
        # earlier versions kept no rate of products
        if rates := [rate for each in group if (rate := each.products_per_second or each.flops_per_second)]:
            return Rate(median(rates), f"{source}, other work", _SCALED, _start(group))
    if device == "cuda" and (peak := profile.flops_of_a_gpu):
        return Rate(peak * profile.mfu, f"assumed {100 * profile.mfu:.0f} % of peak", _ASSUMED, 0.0)
    return None


def _seconds(stage: Stage, tokens: int, profile: Profile, rate: float) -> float | None:
    """Of work on tokens; None where the FLOPs of a token are unknown."""
    job = stage.job
    if isinstance(job, TrainJob):
        step = step_time(job, profile, rate)
        return step.total * tokens / (job.training.batch.global_ * job.sequence_length) if step else None
    flops = model_flops_per_token(job)
    return None if flops is None else flops * tokens / (rate * profile.at_once(stage.kind, stage.processes))


def requeues(duration: Duration, profile: Profile) -> int | None:
    """How often the stage's job reaches its time limit; None where nothing limits it.

    A job that leaves no time for work after its start would be requeued for ever: that is not counted.
    """
    if profile.executor != "slurm":
        return None
    usable = profile.walltime - profile.signal_delay - duration.start
    return ceil((duration.seconds - duration.start) / usable) - 1 if usable > 0 else None


def _same_work(tokens: int, same: Sequence["Measured"]) -> Duration:
    rates = [each.tokens_per_second for each in same if each.tokens_per_second]
    start = _start(same)
    seconds = start + tokens / median(rates)
    times = f"{len(same)} times" if len(same) > 1 else "once"
    low = min(seconds / _SAME, start + tokens / max(rates))
    high = max(seconds * _SAME, start + tokens / min(rates))
    return Duration(seconds, low, high, f"measured here {times}", start)


def _start(group: Sequence["Measured"]) -> float:
    known = [each.overhead for each in group if each.overhead is not None]
    return median(known) if known else 0.0


def _band(seconds: float, factor: float, source: str, start: float) -> Duration:
    return Duration(start + seconds, start + seconds / factor, start + seconds * factor, source, start)


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle: importing `statistics` takes longer than a page."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _alike(measured: str, wanted: str) -> bool:
    return measured == wanted or (measured in _TRAINING and wanted in _TRAINING)
