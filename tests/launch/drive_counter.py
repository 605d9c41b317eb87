"""Drives plans in a process of its own: `drive_counter.py ROOT VARIANT...`; all variants share one stage."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import ENTRY, drive, make_plan, make_stage

from pdforge.launch import task
from pdforge.plan.model import Plan


def plan_of(variant: str) -> Plan:
    shared = make_stage("tokenize", "tokens/0", processes=1)
    return make_plan(variant, [shared, make_stage(f"train {variant}", f"count-{variant}/train", needs=(shared.key,))])


if __name__ == "__main__":
    task.ENTRY = ENTRY
    drive(
        Path(sys.argv[1]),
        *map(plan_of, sys.argv[2:]),
        on_event=lambda status: print(status.title, status.state, status.attempt, flush=True),
    ).run()
