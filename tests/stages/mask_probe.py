"""Run under torchrun: does a training stage's own model see across documents? `mask_probe MODULE SCRATCH`.

Builds the trainer of a compiled module as the stage does, and passes two batches through its own batch preparation and
its FSDP model, which differ in the first document of each sequence only. Prints one JSON line per rank.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from pdforge.stages.train import load_config

FIRST = 20


def main() -> None:
    """The probe."""
    config = load_config(Path(sys.argv[1]))
    config.dump_folder = sys.argv[2]
    trainer = config.build()
    rows, length = config.training.local_batch_size, config.training.seq_len
    tokens = torch.randint(0, 512, (rows, length), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, :FIRST] = torch.randint(0, 512, (rows, FIRST), generator=torch.Generator().manual_seed(2))
    packed = torch.cat([torch.arange(FIRST), torch.arange(length - FIRST)]).expand(rows, -1)
    whole = torch.arange(length).expand(rows, -1)

    def states(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        batch = {"input": tokens.clone(), "positions": positions.clone()}
        inputs, _, extra = trainer.post_dataloading_process(batch, tokens.clone())
        with torch.no_grad(), trainer.train_context():
            return trainer.model_parts[0](inputs, **extra)

    a, b = states(tokens, packed), states(other, packed)
    c, d = states(tokens, whole), states(other, whole)
    report = {
        "first differs": not torch.equal(a[:, :FIRST], b[:, :FIRST]),
        "second differs": not torch.equal(a[:, FIRST:], b[:, FIRST:]),
        "differs as one document": not torch.equal(c[:, FIRST:], d[:, FIRST:]),
    }
    print("PROBE " + json.dumps(report), flush=True)
    trainer.close()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
