"""A compiled training at its real size in one process without a device: does it build, and what memory does it take?

torchtitan's own Trainer is built under its fake process group, which answers every collective at once and says that
there are as many ranks as wanted. From where the model is spread over them, tensors are fake: they have shapes, dtypes
and storages, and no memory. One micro-step of the real micro-batch and one optimizer step run on them, the real code
from the loader's shapes to AdamW; `Allocations` counts.

Fake tensors say that they are on the CPU, where FSDP2 needs no streams. For a job on CUDA, what has another kernel
there is replaced by an operator that keeps the same tensors: attention (FlexAttention keeps q, k, v, its result and a
sum a head) and RMSNorm.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed.tensor.experimental._context_parallel._attention as context_parallel
import torchtitan.models.common.attention as titan_attention
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import FSDPModule
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.distributed import utils as titan_distributed
from torchtitan.tools import utils as titan_utils
from torchtitan.trainer import Trainer

from pdforge.plan.jobs import kept
from pdforge.titan.allocations import Allocations
from pdforge.titan.loader import StoreLoader
from pdforge.titan.mock import MockLoader
from pdforge.titan.trainer import DistillTrainer

_BLOCK = 128
"""Positions of a block of attention's mask."""


class Measured(NamedTuple):
    """One rank of a training.

    Attributes:
        peak: bytes by what they are for, when their sum was highest; empty of a pipeline, whose stages cannot pass
            shapes on through a fake process group: there only `static` is known.
        static: bytes of parameters, gradients and optimizer, which are there in every step.
        ranks: of the job.
        parameters: of the whole model.
    """

    peak: dict[str, int]
    static: int
    ranks: int
    parameters: int


def measure(config: DistillTrainer.Config, *, ranks: int, rank: int, cuda: bool) -> Measured:
    """Build the training as one of its ranks, and run one step of it on fake tensors. Once a process.

    Args:
        config: what a compiled module's `config()` returns.
        ranks: of the job.
        rank: which of them; with a pipeline they hold different parts of the model.
        cuda: whether the job runs on CUDA.

    Raises:
        Exception: whatever torchtitan or torch raise of a configuration that does not work.
    """
    os.environ |= {"NGPU": str(ranks), "WORLD_SIZE": str(ranks), "RANK": str(rank), "LOCAL_RANK": "0"}
    # fake tensors know no device numbers
    titan_utils.get_local_device = lambda: torch.device("cpu")
    _replace_kernels(cuda)
    allocations = Allocations()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        trainer = _as_trial(config, Path(folder), _Fakes(stack, allocations)).build()
        return _Step(trainer, allocations).run(ranks)


def _as_trial(config: DistillTrainer.Config, folder: Path, fakes: _Fakes) -> DistillTrainer.Config:
    """The configuration without what reads or writes stores and checkpoints."""
    spec = config.model_spec
    assert spec is not None
    if config.parallelism.pipeline_parallel_degree > 1:
        spec = dataclasses.replace(spec, pipelining_fn=fakes.after(spec.pipelining_fn))
    else:
        spec = dataclasses.replace(spec, parallelize_fn=fakes.after(spec.parallelize_fn))
    # of a dataclass that torchtitan extends with slots mypy knows no fields
    trial: DistillTrainer.Config = dataclasses.replace(  # type: ignore[call-arg]
        config,
        model_spec=spec,
        dump_folder=str(folder),
        teacher=None,
        dataloader=MockLoader.Config(like=_as_stored(config)),
        validator=dataclasses.replace(config.validator, enable=False),
        checkpoint=dataclasses.replace(config.checkpoint, enable=False, initial_load_path=None),
        comm=dataclasses.replace(config.comm, mode="fake_backend"),
        compile=dataclasses.replace(config.compile, enable=False),
    )
    return trial


def _as_stored(config: DistillTrainer.Config) -> StoreLoader.Config:
    """The loader's configuration; where a teacher runs beside the student, as if what it says came from a store."""
    loader, teacher = config.dataloader, config.teacher
    assert isinstance(loader, StoreLoader.Config)
    if teacher is None:
        return loader
    top_p, top_k = kept(teacher.truncation)
    return dataclasses.replace(loader, logits="beside", top_p=top_p, top_k=top_k, spread=teacher.spread, named=False)


class _Fakes:
    """Begins with fake tensors where a model has been spread over the ranks."""

    def __init__(self, stack: ExitStack, allocations: Allocations) -> None:
        self._stack, self._allocations = stack, allocations

    def after(self, spread: Callable[..., Any]) -> Callable[..., Any]:
        """The function that spreads a model; then everything is fake, and counted."""

        def spread_and_fake(*arguments: Any, **named: Any) -> Any:
            result = spread(*arguments, **named)
            for part in result[1] if isinstance(result, tuple) else [result]:
                # values that are not there cannot be drawn within bounds
                part.init_weights = lambda **_: None
            self._stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            self._stack.enter_context(self._allocations)
            return result

        return spread_and_fake


class _Step:
    """One step of a trainer, counted."""

    def __init__(self, trainer: DistillTrainer, allocations: Allocations) -> None:
        self._trainer, self._allocations = trainer, allocations
        self._parameters = [p for part in trainer.model_parts for p in part.parameters()]

    def run(self, ranks: int) -> Measured:
        """Optimizer state first, as from the second step on; then what takes most."""
        allocations, trainer = self._allocations, self._trainer
        allocations.own(self._parameters, "parameters")
        allocations.own((b for part in trainer.model_parts for b in part.buffers()), "activations")
        for parameter in self._parameters:
            parameter.grad = torch.empty_like(parameter)
        self._update()
        trainer.optimizers.zero_grad()
        allocations.restart()
        if trainer.parallel_dims.pp_enabled:
            return Measured({}, self._static(with_gradients=True), ranks, self._elements)
        # the micro-step after another one, whose gradients are there
        for _ in range(min(2, trainer.gradient_accumulation_steps)):
            self._forward_backward()
        allocations.own((p.grad for p in self._parameters), "gradients")
        self._update()
        allocations.own(self._gathered(), "gathered weights")
        return Measured(allocations.at_peak(), self._static(), ranks, self._elements)

    @property
    def _elements(self) -> int:
        return sum(parameter.numel() for parameter in self._parameters)

    def _static(self, *, with_gradients: bool = False) -> int:
        """Bytes of parameters, gradients and optimizer; `with_gradients`: gradients are not there, and count like
        parameters.
        """
        held = self._allocations.held()
        return sum(held.get(name, 0) for name in ("parameters", "gradients", "optimizer")) + (
            held["parameters"] if with_gradients else 0
        )

    def _forward_backward(self) -> None:
        allocations, trainer = self._allocations, self._trainer
        allocations.phase = "batch"
        batches = iter(trainer.dataloader)
        inputs, labels = next(batches)
        for part in trainer.model_parts:
            part.register_forward_pre_hook(lambda *_: self._enter("activations"))
            part.register_forward_hook(self._after_forward)
        # not the trainer's own: it looks at values
        Trainer.forward_backward_step(trainer, input_dict=inputs, labels=labels, global_valid_tokens=torch.tensor(1))

    def _after_forward(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._enter("loss")
        if output.requires_grad:
            output.register_hook(lambda _: self._enter("backward"))  # type: ignore[no-untyped-call]

    def _enter(self, phase: str) -> None:
        self._allocations.phase = phase

    def _update(self) -> None:
        self._enter("update")
        trainer = self._trainer
        titan_distributed.clip_grad_norm_(
            self._parameters,
            trainer.config.training.max_norm,
            foreach=True,
            pp_mesh=trainer.parallel_dims.get_optional_mesh("pp"),
            ep_enabled=False,
        )
        trainer.optimizers.step()
        self._allocations.own(
            (
                value
                for optimizer in trainer.optimizers.optimizers
                for state in optimizer.state.values()
                for value in state.values()
                if isinstance(value, Tensor)
            ),
            "optimizer",
        )

    def _gathered(self) -> Iterator[Tensor]:
        for part in self._trainer.model_parts:
            for module in part.modules():
                if isinstance(module, FSDPModule):
                    for group in module._get_fsdp_state()._fsdp_param_groups:
                        for parameter in group.fsdp_params:
                            yield from parameter.all_gather_outputs


def _replace_kernels(cuda: bool) -> None:
    titan_attention._compiled_create_block_mask = _block_mask
    context_parallel._compiled_create_block_mask = _block_mask  # type: ignore[assignment]
    titan_attention.FlexAttention._compiled_flex_attn = staticmethod(_cuda_attention if cuda else _cpu_attention)
    if cuda:
        nn.functional.rms_norm = _cuda_rms_norm  # type: ignore[assignment]


def _block_mask(*sizes: Any, **named: Any) -> BlockMask:
    """A mask of the right sizes: which blocks are in it depends on values. Arguments of `create_block_mask`."""
    names = ("mask_mod", "B", "H", "Q_LEN", "KV_LEN")
    mask_mod, batch, heads, queries, keys = (
        sizes[number] if number < len(sizes) else named[name] for number, name in enumerate(names)
    )
    rows, columns = -(-queries // _BLOCK), -(-keys // _BLOCK)
    counts = [torch.zeros(batch or 1, heads or 1, rows, dtype=torch.int32) for _ in range(2)]
    indices = [torch.zeros(batch or 1, heads or 1, rows, columns, dtype=torch.int32) for _ in range(2)]
    return BlockMask.from_kv_blocks(
        counts[0],
        indices[0],
        counts[1],
        indices[1],
        BLOCK_SIZE=_BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(queries, keys),
        compute_q_blocks=False,
    )


def _cuda_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, **_: Any) -> tuple[Tensor, Any]:
    """Flash attention keeps what FlexAttention keeps; shapes [B, N, L, H]."""
    out, sums, *_rest = torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v, scale=scale)
    return out, types.SimpleNamespace(lse=sums)


def _cpu_attention(
    q: Tensor, k: Tensor, v: Tensor, *, block_mask: BlockMask, scale: float | None, **_: Any
) -> tuple[Tensor, Any]:
    """What `cpu.py` puts in its place: the kernel for the CPU under a dense mask, kept for the other layers."""
    mask: Tensor | None = getattr(block_mask, "_pdforge_dense", None)
    if mask is None:
        mask = torch.zeros(block_mask.shape[0], 1, q.shape[2], k.shape[2], dtype=torch.bool)
        block_mask._pdforge_dense = mask  # type: ignore[attr-defined]
    additive = torch.zeros(mask.shape, dtype=q.dtype)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (each.repeat_interleave(groups, dim=1) for each in (k, v))
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(
        q, k, v, attn_mask=additive, scale=scale
    )
    return out, types.SimpleNamespace(lse=sums)


def _cuda_rms_norm(rows: Tensor, _shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """In the place of the fused kernel."""
    del eps
    out: Tensor = _RMSNorm.apply(rows, weight)
    return out


class _RMSNorm(torch.autograd.Function):
    """Keeps what the fused kernel keeps: its input, the weight, and a number a row. Computes nothing."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight, torch.empty(rows.shape[:-1], dtype=torch.float32))
        return torch.empty_like(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        del gradients
        rows, weight, _ = ctx.saved_tensors
        return torch.empty_like(rows), None if weight is None else torch.empty_like(weight)
