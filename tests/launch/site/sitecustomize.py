"""Makes the stages of `pdforge` processes others, in the tests of commands, and lets ranks of real ones fail, in those
of SLURM: Python imports this at its start.
"""

import os
import sys

_is_rank = "submitit" in " ".join(sys.orig_argv)
if os.environ.get("PDFORGE_TEST_ENTRY") and not _is_rank:
    from pdforge.launch import task

    task.ENTRY = os.environ["PDFORGE_TEST_ENTRY"]
if os.environ.get("PDFORGE_TEST_FAULT") and _is_rank:
    import faults

    faults.install()
