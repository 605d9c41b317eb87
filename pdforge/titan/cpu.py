"""torchtitan 0.3.0 on CPUs: what it takes to run its Trainer, unchanged, with gloo and exact document masks.

Call `prepare()` before `torchtitan.trainer` is imported; it does nothing where there is a CUDA device. What it mends,
and why:

- torchtitan falls back to "cuda" where it finds no accelerator: it is given a device module for the CPU.
- FlexAttention has no backward pass on the CPU: its kernel is replaced by scaled-dot-product attention under the
  dense form of the *same* block mask. Changing the model to plain causal attention instead would silently let packed
  documents see each other.
- torchtitan compiles the making of the block mask, which on a CPU needs a C++ compiler and half a minute: it is made
  eagerly.
- gloo has no PREMUL_SUM reduction: `use_sum_reduction` makes FSDP divide by itself.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.attention.flex_attention import AuxOutput, BlockMask, create_block_mask, create_mask


def prepare() -> None:
    """Make torchtitan use the CPU where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    import torchtitan.tools.utils as titan_utils  # noqa: PLC0415 - before its trainer, see above

    titan_utils.device_type = "cpu"
    titan_utils.device_module = _CpuDevice("cpu")

    # imports what looks the device up, so only now
    import torchtitan.models.common.attention as titan_attention  # noqa: PLC0415

    titan_attention._compiled_create_block_mask = create_block_mask
    titan_attention.FlexAttention._compiled_flex_attn = staticmethod(_dense_attention)


def use_sum_reduction(parallelize: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """torchtitan's parallelize function of a model, whose FSDP modules then reduce gradients by a plain sum on the
    CPU.
    """

    def parallelized(model: nn.Module, **arguments: Any) -> nn.Module:
        model = parallelize(model, **arguments)
        if not torch.cuda.is_available():
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.set_force_sum_reduction_for_comms(True)
        return model

    return parallelized


class _CpuDevice(types.ModuleType):
    """The part of `torch.cuda`'s interface that torchtitan uses, for the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def get_device_name(self, *_: Any) -> str:
        return "cpu"

    def get_device_properties(self, *_: Any) -> types.SimpleNamespace:
        return types.SimpleNamespace(total_memory=_total_memory())

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def reset_peak_memory_stats(self, *_: Any) -> None:
        """There are no statistics to reset."""

    def empty_cache(self) -> None:
        """There is no cache to empty."""

    def memory_stats(self, *_: Any) -> dict[str, int]:
        names = ("active_bytes.all.peak", "reserved_bytes.all.peak", "num_alloc_retries", "num_ooms")
        return dict.fromkeys(names, 0)


def _total_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score_mod: Any,
    block_mask: BlockMask,
    scale: float | None,
    enable_gqa: bool,
    **_: Any,
) -> tuple[Tensor, AuxOutput]:
    """FlexAttention's result by dense attention; shapes [B, N, L, H]."""
    if score_mod is not None:
        raise ValueError("score_mod is not supported on the CPU")
    batch, _heads = block_mask.shape[:2]
    mask = _dense_mask(block_mask, batch, query.shape[2], key.shape[2], query.device)
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
    )
    return out, AuxOutput(lse=None, max_scores=None)


def _dense_mask(block_mask: BlockMask, batch: int, queries: int, keys: int, device: torch.device) -> Tensor:
    """bool [batch, 1, queries, keys]; made once for the layers of a forward pass, which share the block mask."""
    cached: Tensor | None = getattr(block_mask, "_pdforge_dense", None)
    if cached is None or cached.shape[-2:] != (queries, keys):
        cached = create_mask(block_mask.mask_mod, batch, 1, queries, keys, device=str(device))
        block_mask._pdforge_dense = cached  # type: ignore[attr-defined]
    return cached
