"""torchtitan's Trainer for pre-training distillation: α, the packed teacher, a clean stop, held-out loss."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor
from torchtitan.components.loss import ChunkedLossWrapper
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.trainer import Trainer

from pdforge import heartbeat
from pdforge.distill.loss import means
from pdforge.errors import EnvironmentFault
from pdforge.layout import StageDirectory
from pdforge.titan import rehearsal
from pdforge.titan.checkpoints import StageCheckpoints, require_same_science, science
from pdforge.titan.guard import FiniteStep, gradient_norms
from pdforge.titan.heldout import HeldOutLoss
from pdforge.titan.live import LiveTeacher
from pdforge.titan.loader import SAMPLES, TEACHER, StoreLoader
from pdforge.titan.loss import DistillationLoss, innermost
from pdforge.titan.metrics import StageMetrics
from pdforge.titan.online import CapturingLoss, OnlineWriter
from pdforge.titan.packing import pack


class DistillTrainer(Trainer):
    """Overrides the seams of torchtitan's Trainer: batch preparation, the step, its loss, what is saved, and the start
    and the end of the loop.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """torchtitan's configuration."""

        metrics: MetricsProcessor.Config = field(default_factory=StageMetrics.Config)
        teacher: LiveTeacher.Config | None = None
        """The teacher that runs beside the student; None: its distributions are stored, or there is none."""

        def __post_init__(self) -> None:
            # super() does not find the base class of a dataclass with slots
            Trainer.Config.__post_init__(self)

    metrics_processor: StageMetrics
    checkpointer: StageCheckpoints
    validator: HeldOutLoss
    dataloader: StoreLoader

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        loss = innermost(self.loss_fn)
        self.objective = loss if isinstance(loss, DistillationLoss) else None
        self.stop_requested: Callable[[], bool] = lambda: False
        """Set by the stage: whether somebody asked this process to stop."""
        self.stopped = False
        """Whether training ended on request, before its last step, with everything saved."""
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._finite = FiniteStep(
            self.gradient_accumulation_steps,
            self._positions,
            config.training.global_batch_size,
            self.dataloader.order,
            self.device,
        )
        self._online: OnlineWriter | None = None
        if isinstance(loss, CapturingLoss):
            self._online = OnlineWriter(loss, StageDirectory(Path(config.dump_folder)).distributions)
            self.checkpointer.before_save = self._online.publish
        self._teacher: LiveTeacher | None = None
        if config.teacher is not None:
            mesh = self.parallel_dims.get_optional_mesh("dp_shard")
            micro = config.training.local_batch_size
            self._teacher = LiveTeacher(config.teacher, self.device, mesh, micro, self.dataloader.split)
        self._schedule_steps = config.lr_scheduler.total_steps or config.training.steps
        if self.parallel_dims.pp_enabled:
            self.metrics_processor.agree = self._of_last_stage
        if self.objective is not None:
            self.objective.to(self.device)
            self.metrics_processor.parts = self._parts
            if self.objective.follows_teacher:
                convergence = self.dataloader.convergence()
                self.objective.excess = partial(convergence.excess, batch=config.training.global_batch_size)
            self._expect_shape_inference()
            if config.validator.enable:
                self.validator.afterwards = self._expect_shape_inference

    def _expect_shape_inference(self) -> None:
        """At its start, and after each held-out measurement, a pipeline calls the loss once on garbage."""
        assert self.objective is not None
        if self.parallel_dims.pp_enabled and self.pp_has_last_stage:
            chunked = isinstance(self.loss_fn, ChunkedLossWrapper)
            self.objective.warmup_calls = self.loss_fn.num_chunks if chunked else 1

    def post_dataloading_process(
        self, input_dict: dict[str, Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """The teacher joins the labels before torchtitan shards them."""
        teacher = [input_dict[key] for key in TEACHER if key in input_dict]
        if self._teacher is not None:
            teacher = self._teacher.teach(input_dict["input"], labels, input_dict["positions"], input_dict[SAMPLES])
        inputs_only = {key: value for key, value in input_dict.items() if key not in (*TEACHER, SAMPLES)}
        if teacher:
            labels = pack(labels, *teacher)
        inputs, labels, extra = super().post_dataloading_process(inputs_only, labels)
        if teacher:
            # torchtitan counted every number of the packed rows as a token
            self.ntokens_seen += labels.numel() // labels.shape[-1] - labels.numel()
        return inputs, labels, extra

    def forward_backward_step(self, **arguments: Any) -> Tensor:
        """torchtitan's, whose loss every stage of a pipeline knows."""
        if self._online is not None:
            self._online.before(self.step, arguments["input_dict"][SAMPLES])
        loss = super().forward_backward_step(**arguments)
        if self._online is not None:
            self._online.after(self.step)
        if self.parallel_dims.pp_enabled:
            loss = self._of_last_stage(loss)
        self._finite.add(loss)
        return loss

    def _of_last_stage(self, value: Tensor) -> Tensor:
        """The value of the pipeline's last stage, on all its stages; 0-dim."""
        value = value.detach().reshape(())
        mine = value if self.pp_has_last_stage else torch.zeros_like(value)
        return collectives.all_reduce(mine, "sum", self.parallel_dims.get_mesh("pp"))

    def _positions(self, micro_step: int) -> range:
        """Those of this rank in a micro-step of this step; with a pipeline from its first to its last micro-batch."""
        batches = self.num_pipeline_parallel_microbatches
        first = ((self.step - 1) * self.gradient_accumulation_steps + micro_step) * batches
        return range(self.dataloader.positions(first).start, self.dataloader.positions(first + batches - 1).stop)

    def state_dict(self) -> dict[str, Any]:
        """The step, and what it was trained with; the same on every rank and for every number of them."""
        return {"step": self.step, "science": self._science()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, of whatever number of processes.

        Raises:
            UsageError: it is of another training; names the difference.
        """
        schedules = not self.checkpointer.extending
        require_same_science(state_dict["science"], self._science(), state_dict["step"], schedules=schedules)
        self.step = state_dict["step"]
        training = self.config.training
        ranks = self.parallel_dims.get_mesh("loss").size() if self.parallel_dims.dp_cp_enabled else 1
        # torchtitan sums what the ranks have seen
        self.ntokens_seen = self.step * training.global_batch_size * training.seq_len // ranks

    def _science(self) -> str:
        return science(self.config, self.dataloader.split.content)

    def train_step(self, data_iterator: Any) -> None:
        """One optimizer step at this step's α.

        Raises:
            StageFailed: before the optimizer, where a loss or the gradient norm is not finite.
        """
        if self.objective is not None:
            # of the schedule's steps: a run cut short by hand (`--training.steps 10`) must follow the same curve
            self.objective.start_step(self.step, self._schedule_steps)
        with gradient_norms(lambda norm: self._finite.agree(norm, self.step)):
            super().train_step(data_iterator)
        heartbeat.beat(self.step)
        self.metrics_processor.report_progress(self.step, now=self.step == self.config.training.steps)

    def should_continue_training(self) -> bool:
        """Until the last step, or until any rank was asked to stop: then all ranks save together and leave."""
        if self._saved_step < 0:
            self._take_up()
        if self.step >= self.config.training.steps:
            return False
        if self.checkpointer.scheduled(self.step):
            self._saved_step, self._saved_at = max(self._saved_step, self.step), time.monotonic()
        longest = self.config.checkpoint.seconds
        late = 0 < longest <= time.monotonic() - self._saved_at
        wishes = torch.tensor([float(self.stop_requested()), float(late)], device=self.device)
        torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
        self.stopped, due = (bool(wish) for wish in wishes.tolist())
        if (self.stopped or due) and self.step > self._saved_step:
            self._save()
        return not self.stopped

    def _save(self) -> None:
        """A whole checkpoint at this step, which is not on schedule."""
        if self.stopped:
            # waits until it is written
            self.checkpointer.save(self.step, last_step=True)
        else:
            self.checkpointer.due = True
            self.checkpointer.save(self.step)
            self.checkpointer.due = False
        self._saved_step, self._saved_at = self.step, time.monotonic()

    def _take_up(self) -> None:
        """Once, when the newest checkpoint is loaded and before the first step."""
        heartbeat.finish("checkpoint load")
        if self.step < self.config.training.steps and rehearsal.wanted(self.device):
            rehearsal.rehearse(self)
        self._saved_step = self.step
        if self.checkpointer.extending:
            self._follow_schedule()
        self.metrics_processor.resume(self.step)
        if self._online is not None:
            self._online.resume(self.step)
        unfinished = 0 < self.step < self.config.training.steps
        if unfinished and self.config.validator.enable and self.validator.should_validate(self.step):
            # torchtitan saves before it validates: a kill between the two must not leave a gap in the curve
            self.validator.validate(self.model_parts, self.step)

    def _follow_schedule(self) -> None:
        """Set the next step's learning rate, which the optimizer has from a checkpoint of another schedule."""
        for scheduler in self.lr_schedulers:
            for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = rate

    def train(self) -> None:
        """Train to the last step, then measure the held-out loss.

        Raises:
            EnvironmentFault: the data ended before the last step.
        """
        super().train()
        if self.stopped:
            return
        if self.step < self.config.training.steps:
            raise EnvironmentFault(
                f"the training data ended at step {self.step} of {self.config.training.steps}",
                remedy="the token or logit store holds fewer samples than the plan says; verify it",
            )
        if self.config.validator.enable:
            self.validator.validate(self.model_parts, self.step)

    def _parts(self) -> dict[str, float]:
        """The objective's parts at this step (losses: means over all labels; the others: over taught positions) and
        α; a collective, with the same result on every rank.
        """
        assert self.objective is not None
        sums = self.objective.sums.clone()
        # of a pipeline only the last stage has any
        for name, used in (("loss", self.parallel_dims.dp_cp_enabled), ("pp", self.parallel_dims.pp_enabled)):
            if used:
                sums = collectives.all_reduce(sums, "sum", self.parallel_dims.get_mesh(name))
        return {**means(sums), "alpha": float(self.objective.alpha)}
