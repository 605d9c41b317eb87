"""What GPUs can do, by type: a profile names one, and need not look it up."""

from typing import NamedTuple

_MIB = 1 << 20


class GPU(NamedTuple):
    """One type of GPU."""

    memory: int
    """Bytes that a process can allocate at most, as NVML reports them."""
    flops: float
    """Dense bfloat16 FLOP/s of the tensor cores, as the manufacturer states them."""
    link: float
    """Bytes a second to the other GPUs of its node, one way."""
    network: float
    """Bytes a second to other nodes, one way, as nodes with this GPU usually have it."""


GPUS = {
    "A100-40GB": GPU(40_960 * _MIB, 312e12, 300e9, 25e9),
    "A100-80GB": GPU(81_920 * _MIB, 312e12, 300e9, 25e9),
    "H100": GPU(81_559 * _MIB, 989e12, 450e9, 50e9),
    "H200": GPU(143_771 * _MIB, 989e12, 450e9, 50e9),
    "L40S": GPU(46_068 * _MIB, 362e12, 32e9, 12.5e9),
}
"""Memory: `nvidia-smi` of each, from thundergolfer.com/blog/nvidia-gpu-memory-capacity. FLOP/s: NVIDIA's data sheets,
without sparsity; those of A100, H100 (SXM) and H200 are torchtitan's `get_peak_flops` too, so that a plan and a trainer
mean the same by MFU.

Links: NVLink 3 and 4, of L40S PCIe 4; networks: a 200 (DGX A100) or 400 Gb/s adapter (DGX H100) for each GPU; of L40S
our guess, 100 Gb/s. A profile may say otherwise."""
