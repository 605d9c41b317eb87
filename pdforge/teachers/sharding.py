"""A frozen model over several devices: FSDP2 on its decoder layers, which hold most of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_layers(layers: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Spread each layer's weights over the processes of a mesh of one dimension; a layer is whole only while it runs.

    Embeddings and output projection stay whole on every process: they run by themselves, and may be one tensor.
    """
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


@torch.no_grad()
def fill(model: nn.Module, whole: nn.Module | None) -> None:
    """Weights and buffers of the first process's `whole` into a sharded model; a collective of all processes.

    One tensor at a time exists whole on a device.

    Args:
        model: the same on every process but for its shards.
        whole: of the first process; None on the others.
    """
    values = {} if whole is None else dict(_tensors(whole))
    for name, part in _tensors(model):
        full = torch.empty(part.shape, dtype=part.dtype, device=part.device)
        if whole is not None:
            full.copy_(values[name])
        torch.distributed.broadcast(full, src=0)
        if isinstance(part, DTensor):
            mine = distribute_tensor(full, part.device_mesh, part.placements, src_data_rank=None)
            part.to_local().copy_(mine.to_local())
        else:
            part.copy_(full)


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
