"""How a teacher converged while it stored its distributions: what its logit store says of it, and α may follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from pdforge.errors import StoreMismatch, StoreMissing
from pdforge.store.files import Folder
from pdforge.store.manifest import Part, read_manifest
from pdforge.store.spec import KIND, Manifest


class Seen(Part):
    """How a teacher that was being trained did on samples, as it saw them."""

    steps: tuple[int, int]
    """The first and the last of its steps that saw them."""
    loss: float
    """Its mean loss on them then, nats a token."""


class Recorded(Part):
    """What the capture of an online teacher adds to the manifest."""

    from_step: int
    """The first step whose distributions were captured."""
    shards: tuple[Seen, ...]
    """Of each shard of the store."""
    last: Seen
    """Of the last samples of the teacher's training, at most as many as a shard has."""


class Convergence(NamedTuple):
    """What the teacher of a store lost on each shard, when it saw that, and at its end; nats a token."""

    losses: tuple[float, ...]
    shard_sequences: int
    last: float

    @classmethod
    def of(cls, manifest: Manifest, place: str) -> Convergence:
        """That of a store, which `place` names.

        Raises:
            StoreMismatch: the store does not say.
        """
        held: Mapping[str, Any] = manifest.capture
        try:
            recorded = Recorded.model_validate({name: held.get(name) for name in Recorded.model_fields})
        except ValidationError as error:
            raise StoreMismatch(
                f"{place}: does not say how its teacher converged, which α follows",
                remedy="only distributions that a teacher stored while it was trained say so; of those, delete this "
                "store with the stage that made it, and have it made again: nothing is computed anew",
            ) from error
        losses = tuple(shard.loss for shard in recorded.shards)
        return cls(losses, manifest.shard_sequences, recorded.last.loss)

    @classmethod
    def known(cls, path: str) -> Convergence | None:
        """That of the store at `path`; None: there is no whole one yet. Raises as `of`, and StoreDamaged."""
        folder = Folder(path)
        try:
            return cls.of(read_manifest(folder, KIND, Manifest), path)
        except StoreMissing:
            return None

    def excess(self, step: int, batch: int) -> float:
        """Nats a token by which the teacher's loss on a step's samples was above its last one, and at least 0.

        The mean over the samples, each with the loss of its shard. A student reads its store from the first sample on,
        and once.

        Args:
            step: of the student, from 1.
            batch: its samples.
        """
        first, size = (step - 1) * batch, self.shard_sequences
        shards = range(first // size, (first + batch - 1) // size + 1)
        shares = [min(first + batch, (shard + 1) * size) - max(first, shard * size) for shard in shards]
        total = sum(share * self.losses[shard] for share, shard in zip(shares, shards, strict=True))
        return max(0.0, total / batch - self.last)
