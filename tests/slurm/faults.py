"""What goes wrong inside a rank of a real stage; `sitecustomize` installs it where PDFORGE_TEST_FAULT is set.

The variable is JSON: {part of the stage directory's path: {"rank": 1, "step": 7, "how": "raise" or "memory", "delay":
seconds that every step takes longer}}. A rank that gets USR1 runs out of memory.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from pdforge import heartbeat

VARIABLE = "PDFORGE_TEST_FAULT"
_MOST_BYTES = 2 << 30
"""Where no limit is kept, memory ends here."""


def install() -> None:
    """Have the ranks of this process's stage suffer what the variable says."""
    signal.signal(signal.SIGUSR1, lambda *_: run_out_of_memory())
    table = json.loads(os.environ[VARIABLE])
    what = next((value for part, value in table.items() if part in str(Path.cwd())), {})
    beat = heartbeat.beat

    def beat_and_fail(step: int) -> None:
        beat(step)
        time.sleep(what.get("delay", 0))
        if step == what.get("step") and int(os.environ["RANK"]) == what["rank"]:
            if what["how"] == "raise":
                raise RuntimeError(f"the test broke it at step {step}")
            run_out_of_memory()

    heartbeat.beat = beat_and_fail


def run_out_of_memory() -> None:
    """Write to more and more memory until the kernel kills this process, or there is enough of it."""
    held = [b"\1" * (32 << 20) for _ in range(_MOST_BYTES >> 25)]
    raise MemoryError(f"{len(held)} blocks were too many")
