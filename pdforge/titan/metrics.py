"""Metrics of a training stage: torchtitan's own, plus `metrics.jsonl` and `progress.json` in the stage's directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.tools import utils

from pdforge.layout import StageDirectory, write_atomically, write_json

HELDOUT = "heldout_loss"
"""Column of the held-out loss: such a row has nothing else but its step and tokens."""


class StageMetrics(MetricsProcessor):
    """Adds the objective's parts to torchtitan's metrics and writes rows that survive a restart without gaps or
    repeats.

    `log` runs on every rank, so the parts may be reduced over ranks there; rank 0 writes, below torchtitan's dump
    folder.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """What the rows and the progress say of the stage."""

        stage: str = ""
        """Kind of the stage, for `progress.json`."""
        steps: int = 0
        """Last step of the stage."""
        tokens_per_step: int = 0
        """Tokens of a global batch."""

    def __init__(self, config: Config, *, dump_folder: str, **arguments: Any) -> None:
        if config.enable_wandb:
            _name_wandb_run(Path(dump_folder))
        super().__init__(config, dump_folder=dump_folder, **arguments)
        self._directory = StageDirectory(Path(dump_folder))
        self._writes = torch.distributed.get_rank() == 0
        self._started: tuple[int, float] | None = None
        self._reported = 0.0
        self._lm_loss: float | None = None
        self.parts: Callable[[], dict[str, float]] = dict
        """Set by the trainer: the objective's parts at the current step, reduced over ranks."""
        self.agree: Callable[[Tensor], Tensor] | None = None
        """Set by the trainer of a pipeline: what its last stage measured."""
        self.heldout_loss: float | None = None
        """Of the last validation, in nats a token."""
        self.peak_memory = 0
        """Bytes of this rank's device that tensors took at most, in this process; 0 where it is not counted (CPU)."""

    def resume(self, step: int) -> None:
        """Drop the rows behind the step from which training goes on, and what was measured after it: they come
        again.
        """
        self._started = (step, time.monotonic())
        self.report_progress(step, now=True)
        path = self._directory.metrics
        if not self._writes or not path.exists():
            return
        rows = [line for line in path.read_text().splitlines() if _order_of(line) <= (step, False)]
        write_atomically(path, "".join(f"{line}\n" for line in rows))

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """torchtitan's log, and a row."""
        parts = self.parts()
        extra = {**(extra_metrics or {}), **{f"distillation/{key}": value for key, value in parts.items()}}
        # torchtitan's log sets the peak back
        stats = utils.device_module.memory_stats(utils.device_type)
        self.peak_memory = max(self.peak_memory, stats.get("active_bytes.all.peak", 0))
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=extra)
        if not self._writes:
            return
        row = {
            "step": step,
            "tokens": step * self.config.tokens_per_step,
            "loss": global_avg_loss,
            "lm_loss": global_avg_loss,
            **parts,
            "learning_rate": max(value for key, value in extra.items() if key.startswith("lr/")),
            "grad_norm": grad_norm,
            "tokens_per_second": self._tokens_per_second(step),
        }
        self._append(row)
        self._lm_loss = row["lm_loss"]

    def log_validation(self, loss: float, step: int, extra_metrics: dict[str, Any] | None = None) -> None:
        """torchtitan's log, and a row of its own; a collective."""
        if self.agree is not None:
            loss = float(self.agree(torch.tensor(loss, dtype=torch.float64, device=utils.device_type)))
        super().log_validation(loss, step, extra_metrics)
        self.heldout_loss = loss
        if self._writes:
            self._append({"step": step, "tokens": step * self.config.tokens_per_step, HELDOUT: loss})

    def _append(self, row: dict[str, Any]) -> None:
        with self._directory.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def report_progress(self, step: int, *, now: bool = False) -> None:
        """What `status` and the live display show; at most once a second, unless it has to be `now`."""
        if not self._writes or not (now or time.monotonic() - self._reported >= 1.0):
            return
        self._reported = time.monotonic()
        rate = self._tokens_per_second(step)
        left = (self.config.steps - step) * self.config.tokens_per_step
        write_json(
            self._directory.progress,
            {
                "stage": self.config.stage,
                "step": step,
                "of": self.config.steps,
                "unit": "steps",
                "loss": self._lm_loss,
                "tokens_per_second": rate,
                "eta_seconds": left / rate if rate else None,
                "message": "",
                "time": time.time(),
            },
        )

    def _tokens_per_second(self, step: int) -> float | None:
        """Of the whole job, since this process took up its work."""
        if self._started is None:
            return None
        first, since = self._started
        elapsed = time.monotonic() - since
        return (step - first) * self.config.tokens_per_step / elapsed if elapsed > 0 else None


def _name_wandb_run(stage: Path) -> None:
    """Every attempt of a stage goes on with one run of Weights & Biases, called as the stage; what the environment says
    counts first. torchtitan reads nothing else.
    """
    name = f"{stage.parent.name}-{stage.name}"
    named = {"WANDB_PROJECT": "pdforge", "WANDB_RUN_ID": name, "WANDB_RUN_NAME": name, "WANDB_RESUME": "allow"}
    for variable, value in named.items():
        os.environ.setdefault(variable, value)


def _order_of(line: str) -> tuple[float, bool]:
    """(step, whether it is a held-out row, which follows the step's own); a row cut short by a kill comes last."""
    try:
        row = json.loads(line)
        return float(row["step"]), HELDOUT in row
    except (ValueError, KeyError, TypeError):
        return float("inf"), True
