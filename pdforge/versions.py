"""The versions that a result depends on. Part of every run's identity, so that a plan made on a laptop without torch
has the hash of the run on the cluster; jobs and `doctor` refuse anything else."""

TORCH = (2, 14)
"""torch 2.14.x: on 2.13 torchtitan 0.3.0 fails or silently doubles the loss."""

TORCHTITAN = "0.3.0"
SPMD_TYPES = "0.2.3"
