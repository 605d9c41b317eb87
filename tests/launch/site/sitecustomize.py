"""Makes the stages of `pdforge` processes counters, in the tests of commands: Python imports this at its start."""

import os
import sys

if os.environ.get("PDFORGE_TEST_ENTRY") and "submitit" not in " ".join(sys.orig_argv):
    from pdforge.launch import task

    task.ENTRY = os.environ["PDFORGE_TEST_ENTRY"]
