"""The mixed loss under tensor parallelism: two gloo processes with half a vocabulary each, against one with all."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pdforge.distill.loss import VocabularyShard, mixed_loss
from pdforge.distill.target import soften
from pdforge.distill.truncation import truncate

ROWS, VOCABULARY, RANKS = 24, 64, 2


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    labels[5] = -100
    teacher, student = (torch.randn(ROWS, VOCABULARY, generator=generator) * 3 for _ in range(2))
    return teacher, student, labels


def _loss(z: torch.Tensor, shard: VocabularyShard | None) -> list[torch.Tensor]:
    teacher, _, labels = _inputs()
    kept = truncate(teacher, 0.9, 12)
    target = soften(kept.ids, kept.logprobs, 2.0)
    z = z.clone().requires_grad_()
    loss = mixed_loss(z, labels, target, torch.tensor(0.7), subtract_entropy=True, shard=shard)
    (gradient,) = torch.autograd.grad(loss.total, z)
    return [loss.total.detach(), loss.lm, loss.kd, gradient]


def _rank(rank: int, folder: str) -> None:
    # a machine's host name may resolve to an address that it cannot reach
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS, timeout=timedelta(minutes=1)
    )
    part = VOCABULARY // RANKS
    student = _inputs()[1][:, rank * part : (rank + 1) * part]
    shard = VocabularyShard(dist.group.WORLD, rank * part)
    torch.save(_loss(student, shard), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_halves_of_the_vocabulary(tmp_path: Path) -> None:
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=RANKS)
    *whole, gradient = _loss(_inputs()[1], None)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    for half in halves:
        torch.testing.assert_close(half[:3], whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.cat([half[3] for half in halves], dim=1), gradient, rtol=0, atol=1e-6)
