"""torch's flight recorder: the last collectives of a rank, for the day on which one of them does not end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch._C._distributed_c10d as c10d

from pdforge import evidence
from pdforge.titan.trainer import DistillTrainer

PREFIX = "rank_"
"""Of the files, one a rank; what NCCL itself writes after its own timeout has the same name."""


def keep(config: DistillTrainer.Config) -> None:
    """Have the record, where the configuration keeps one, go where evidence of this start is collected.

    torchtitan hands the folder to NCCL, which writes there when a collective times out; `write` is called when the
    launcher finds that the attempt hangs.
    """
    if (folder := evidence.folder()) and config.comm.trace_buf_size:
        config.comm.save_traces_folder = str(folder)
        config.comm.save_traces_file_prefix = PREFIX
        evidence.on_hang(write)


def write(folder: Path) -> str:
    """Write the record into the folder, for torch's `torchfrtrace --prefix rank_ FOLDER`; a line on the last entry."""
    entries = json.loads(c10d._dump_nccl_trace_json()).get("entries", [])  # type: ignore[attr-defined]
    dump = c10d._dump_nccl_trace  # type: ignore[attr-defined]
    if not entries:  # gloo has a record of its own
        entries = json.loads(c10d._dump_fr_trace_json()).get("entries", [])  # type: ignore[attr-defined]
        dump = c10d._dump_fr_trace  # type: ignore[attr-defined]
    file = folder / f"{PREFIX}{os.environ['RANK']}"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(dump(includeCollectives=True, includeStackTraces=True, onlyActive=False))
    return f"{_describe(entries)}; all of them: {file}"


def _describe(entries: list[dict[str, Any]]) -> str:
    """The last collective that has not ended, else the last one."""
    if not entries:
        return "no collective was called"
    open_ = [entry for entry in entries if not entry["retired"]]
    last = (open_ or entries)[-1]
    state = "has not ended" if open_ else "has ended"
    return (
        f"collective {last['collective_seq_id']} of {last['process_group'][1]}, {last['profiling_name']} of "
        f"{last['input_sizes']}, {state}"
    )
