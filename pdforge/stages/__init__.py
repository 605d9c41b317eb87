"""What runs inside a job: one file a stage. A stage reads its stage directory and nothing else."""

from pdforge.stages.entry import main

__all__ = ["main"]
