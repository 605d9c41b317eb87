"""Which shards of a store a rank captures: by itself, or in step with those that hold a teacher together with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


class Group:
    """The `size` consecutive ranks, of `ranks`, that hold one copy of a teacher; a context.

    Ranks that need nobody (`size` 1) form no process group: they need not run at the same time.
    """

    def __init__(self, rank: int, ranks: int, size: int, device: torch.device) -> None:
        self._rank, self._ranks, self._size, self._device = rank, ranks, size, device
        self.mesh: DeviceMesh | None = None
        """Over the group's ranks; None where each is alone."""

    def __enter__(self) -> Self:
        if self._size > 1:
            backend = "nccl" if self._device.type == "cuda" else "gloo"
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            torch.distributed.init_process_group(backend)
            shape = (self._ranks // self._size, self._size)
            self.mesh = init_device_mesh(self._device.type, shape, mesh_dim_names=("copies", "shard"))["shard"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.mesh is not None:
            torch.distributed.destroy_process_group()

    def share(self, missing: Sequence[int]) -> Iterator[int | None]:
        """This rank's of the missing shards; None: the others of its group have one more.

        Of a group, the ranks may have looked at different times: what its first one saw counts.
        """
        copies, copy = self._ranks // self._size, self._rank // self._size
        if self.mesh is None:
            yield from (shard for shard in missing if shard % copies == copy)
            return
        seen = [list(missing)]
        torch.distributed.broadcast_object_list(seen, group=self.mesh.get_group(), group_src=0, device=self._device)
        mine = [shard for shard in seen[0] if shard % copies == copy]
        for first in range(0, len(mine), self._size):
            place = first + self._rank % self._size
            yield mine[place] if place < len(mine) else None

    def any(self, mine: bool) -> bool:
        """Whether it holds for any rank of the group."""
        if self.mesh is None:
            return mine
        held = torch.tensor([float(mine)], device=self._device)
        torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX, group=self.mesh.get_group())
        return bool(held.item())
