"""`pretrain-teacher`, `train` and `finetune`: runs the compiled torchtitan module of the stage."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pdforge.errors import EnvironmentFault
from pdforge.layout import StageDirectory, read_json, write_atomically, write_json
from pdforge.plan.jobs import Extended, TrainJob
from pdforge.stages import stop
from pdforge.stages.device import require_device
from pdforge.stages.entry import Results, Stopped
from pdforge.titan import flight
from pdforge.titan.session import train


def run(job: TrainJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Train to the last step and measure the held-out loss.

    Raises:
        EnvironmentFault: no CUDA device where the job wants one, or the data ended early.
    """
    if ranks != job.processes:
        raise EnvironmentFault(
            f"the stage is compiled for {job.processes} processes and was started with {ranks}",
            remedy=f"start it with {job.processes}, or compile it again with `--processes {ranks}`",
        )
    require_device(job.device)
    if job.extends and not directory.whole_checkpoints:
        _take_over(job.extends, directory, rank)
    config = load_config(directory.train_module)
    flight.keep(config)
    outcome = train(config, stop_requested=stop.requested)
    if outcome.stopped:
        return "stopped"
    extended = read_json(directory.extended)
    return {
        "steps": job.steps,
        "tokens": job.steps * job.training.batch.global_ * job.sequence_length,
        "heldout_loss": outcome.heldout_loss,
        "parameters": outcome.parameters,
        **({"peak_memory": outcome.peak_memory} if outcome.peak_memory else {}),
        **({"extends": extended} if extended else {}),
    }


def _take_over(extends: Extended, directory: StageDirectory, rank: int) -> None:
    """Have the rows of the run that this one goes on from; the trainer drops those behind its checkpoint.

    Raises:
        EnvironmentFault: its checkpoint is gone.
    """
    finished = StageDirectory(Path(extends.stage))
    if extends.step not in finished.whole_checkpoints:
        raise EnvironmentFault(
            f"the training was to go on from step {extends.step} of {extends.run}, which is not at "
            f"{finished.checkpoint(extends.step)} any more",
            remedy="plan it again: it goes on from what is there, or begins at its first step",
        )
    if rank == 0:
        write_atomically(directory.metrics, finished.metrics.read_text(encoding="utf-8"))
        write_json(directory.extended, {"run": extends.run, "step": extends.step})


def load_config(module: Path) -> Any:
    """The torchtitan configuration that a compiled module's `config()` returns."""
    spec = importlib.util.spec_from_file_location("pdforge_compiled_train", module)
    if spec is None or spec.loader is None or not module.exists():
        raise EnvironmentFault(f"no compiled module at {module}", remedy="compile the recipe again")
    compiled = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compiled)
    return compiled.config()
