"""What GPUs can do, by type: a profile names one, and need not look it up."""

from __future__ import annotations

from typing import NamedTuple

_MIB = 1 << 20


class GPU(NamedTuple):
    """One type of GPU."""

    memory: int
    """Bytes that a process can allocate at most, as NVML reports them."""
    flops: float
    """Dense bfloat16 FLOP/s of the tensor cores, as the manufacturer states them."""


GPUS = {
    "A100-40GB": GPU(40_960 * _MIB, 312e12),
    "A100-80GB": GPU(81_920 * _MIB, 312e12),
    "H100": GPU(81_559 * _MIB, 989e12),
    "H200": GPU(143_771 * _MIB, 989e12),
    "L40S": GPU(46_068 * _MIB, 362e12),
}
"""Memory: `nvidia-smi` of each, from thundergolfer.com/blog/nvidia-gpu-memory-capacity. FLOP/s: NVIDIA's data sheets,
without sparsity; those of A100, H100 (SXM) and H200 are torchtitan's `get_peak_flops` too, so that a plan and a trainer
mean the same by MFU."""
