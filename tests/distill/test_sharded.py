"""The mixed loss under tensor parallelism: two gloo processes with half a vocabulary each, against one with all."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from pdforge.distill.loss import mixed_loss
from pdforge.distill.student import VocabularyShard, spread
from tests.distill.dense import Case
from tests.distill.inputs import SOUND, VOCABULARY, make, name, objective

RANKS = 2
PART = -(-VOCABULARY // RANKS)
"""Of the first rank; the last one's is smaller."""


def _loss(z: Tensor, case: Case, shard: VocabularyShard | None) -> list[Tensor]:
    inputs = make()
    z = z.clone().requires_grad_()
    loss = mixed_loss(z, inputs.labels, [(inputs.teacher(), 1.0)], torch.tensor(0.7), objective(case), shard=shard)
    (gradient,) = torch.autograd.grad(loss.total, z)
    return [loss.total.detach(), loss.sums, gradient]


def _rank(rank: int, folder: str) -> None:
    # a machine's host name may resolve to an address that it cannot reach
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS, timeout=timedelta(minutes=1)
    )
    own = make().logits[:, rank * PART : (rank + 1) * PART]
    shard = VocabularyShard(dist.group.WORLD, rank * PART)
    results = {name(case): _loss(own, case, shard) for case in SOUND}
    torch.save((results, spread(own, shard)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, list[Tensor]], Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("case", SOUND, ids=name)
def test_two_halves_of_the_vocabulary(halves, case) -> None:
    total, sums, gradient = _loss(make().logits, case, None)
    results = [half[0][name(case)] for half in halves]
    for result in results:
        torch.testing.assert_close(result[0], total, rtol=1e-6, atol=0)
        # agreement among them: the likeliest token may be either rank's
        torch.testing.assert_close(result[1], sums, rtol=1e-5, atol=1e-6)
    joined = torch.cat([result[2] for result in results], dim=1)
    assert (joined - gradient).abs().max() <= 1e-6 * gradient.abs().max().clamp_min(1)


def test_spread_of_two_halves(halves) -> None:
    whole = make().logits.double().std(1, correction=0).float()
    for _, got in halves:
        torch.testing.assert_close(got, whole, rtol=1e-6, atol=0)
