"""Memory that tensors take, storage by storage, whether they are real or fake: what lies there at the peak.

A tracker of storages rather than tensors: views count once, and FSDP2, which frees a gathered parameter by resizing its
storage to nothing, is followed to the byte.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Resize = Callable[[torch.UntypedStorage, int], None]


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage that is made inside, until it is freed, by what it is for.

    `phase` says what a storage made from now on is for. `own` says of tensors that are there what they are for, also
    when they were made inside under another name.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "activations"
        self.current = 0
        """Bytes now."""
        self._live: dict[int, tuple[int, int]] = {}
        self._phases: list[str] = []
        self._changes: list[tuple[int, int]] = []
        self._resize: _Resize = torch.UntypedStorage.resize_

    def own(self, tensors: Iterable[Tensor | None], name: str) -> None:
        """Count these under a name, from when they were made."""
        for tensor in tensors:
            if tensor is not None:
                self._phases[self._track(_local(tensor))] = name

    def at_peak(self) -> dict[str, int]:
        """Bytes by name when their sum was highest."""
        held: Counter[str] = Counter()
        best, total, peak = dict(held), 0, -1
        for number, size in self._changes:
            held[self._phases[number]] += size
            total += size
            if total > peak:
                peak, best = total, dict(held)
        return {name: size for name, size in best.items() if size}

    def held(self) -> dict[str, int]:
        """Bytes by name now."""
        held: Counter[str] = Counter()
        for number, size in self._live.values():
            held[self._phases[number]] += size
        return dict(held)

    def restart(self) -> None:
        """Forget what was, but for what lies there now: the peak is that of what follows."""
        totals: Counter[int] = Counter()
        for number, size in self._changes:
            totals[number] += size
        self._changes = [(number, size) for number, size in totals.items() if size]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._track(_local(leaf))
        return out

    def _track(self, tensor: Tensor) -> int:
        """The number of a tensor's storage, which is counted from now on if it was not."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._phases.append(self.phase)
            number = len(self._phases) - 1
            self._live[key] = (number, 0)
            self._set(key, storage.nbytes())
            weakref.finalize(storage, self._drop, key)
        return self._live[key][0]

    def _set(self, key: int, size: int) -> None:
        number, before = self._live[key]
        self._live[key] = (number, size)
        if size != before:
            self.current += size - before
            self._changes.append((number, size - before))

    def _drop(self, key: int) -> None:
        self._set(key, 0)
        del self._live[key]

    def __enter__(self) -> Allocations:
        """Follow what resizes storages too, which is no operator."""
        tracker, resize = self, self._resize

        def resized(storage: torch.UntypedStorage, size: int) -> None:
            resize(storage, size)
            if storage._cdata in tracker._live:
                tracker._set(storage._cdata, size)

        torch.UntypedStorage.resize_ = resized  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *reason: Any) -> None:
        """Stop."""
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign, assignment]
        super().__exit__(*reason)  # type: ignore[no-untyped-call]


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
