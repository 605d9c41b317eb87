"""From a planned stage to its job directory: what a job reads, and nothing else does it read."""

from pdforge.compile.stage import write_stage

__all__ = ["write_stage"]
