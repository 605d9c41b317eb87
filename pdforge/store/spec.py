"""What a logit store holds: its typed description, and the file that fixes it before the first shard is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError, field_validator

from pdforge.errors import StoreMismatch, StoreMissing
from pdforge.identity import canonical, identity
from pdforge.store.codec import CODECS, COLUMNS, DEFAULT_CODEC
from pdforge.store.files import DamagedFileError, Folder
from pdforge.store.manifest import Kind, Part, Shard
from pdforge.store.ranks import Ranks
from pdforge.store.shards import ShardReader, write_shard_file

KIND: Kind = "pdforge-logits"
RANKS_FILE = "ranks.bin"
ALIGNMENT = "the entry at position t is the distribution of token t+1"


class LogitSpec(Part):
    """What a logit store holds, known before it is written."""

    identity: str
    """Identity of the stage that captures it."""
    teacher: str
    """Identity of the teacher: weights, and how they are reached."""
    tokens: str
    """Identity of the token store."""
    tokens_content: str
    """Content hash of the token store."""
    tokenizer: str
    """Hash of the tokenizer."""
    sequence_length: Annotated[int, Field(ge=1)]
    vocabulary: Annotated[int, Field(ge=2, lt=1 << 24)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    top_k: Annotated[int, Field(ge=1, le=255)]
    sequences: Annotated[int, Field(ge=1)]
    """Samples of the token store's train split, from `first` on."""
    first: Annotated[int, Field(ge=1)] | None = None
    """The first of them; None: 0."""
    shard_sequences: Annotated[int, Field(ge=1)]
    """Sequences of a shard; the last may have fewer."""
    teacher_dtype: str
    """Of the teacher's forward pass."""
    codec: str = DEFAULT_CODEC
    columns: tuple[str, ...] = ()
    """Optional per-position columns."""
    seed: int | None = None
    """Of the draws, of a store of sampled distributions: its `top_p` is 1, its `top_k` the number of draws."""
    alignment: str = ALIGNMENT

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        if value not in CODECS:
            raise ValueError(f"unknown codec; known: {', '.join(CODECS)}")
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if set(value) - set(COLUMNS) or len(set(value)) != len(value):
            raise ValueError(f"columns are chosen from {', '.join(COLUMNS)}")
        return value

    @property
    def start(self) -> int:
        """The first sample."""
        return self.first or 0

    @property
    def shards(self) -> int:
        """How many shards the store has."""
        return -(-self.sequences // self.shard_sequences)

    def shard_length(self, index: int) -> int:
        """Sequences of shard `index`."""
        return min(self.shard_sequences, self.sequences - index * self.shard_sequences)

    def hash(self) -> str:
        """Identity of the whole specification."""
        return identity(self.model_dump(mode="json", exclude_none=True))


class Fidelity(Part):
    """How near the stored distributions are to the captured ones, measured while they were written."""

    positions: int
    entries: int
    counts: tuple[int, ...]
    """Positions by number of kept entries, from 0 to top_k."""
    masses: tuple[int, ...]
    """Positions by kept mass, in the bins of `pdforge.store.fidelity.MASS_EDGES`."""
    mass_sum: float
    """Sum of the kept mass over all positions."""
    sampled: int
    """Positions decoded again and compared: each shard's first sequence."""
    kl_sum: float
    """Sum over the sampled positions of KL(captured‖decoded), both renormalised, nats."""
    kl_max: float

    @property
    def kl_mean(self) -> float:
        """Mean KL of a sampled position, nats."""
        return self.kl_sum / self.sampled

    @property
    def mass_mean(self) -> float:
        """Mean kept mass."""
        return self.mass_sum / self.positions


class Manifest(LogitSpec):
    """A whole logit store."""

    ranks: str
    """Checksum of the rank table."""
    shard_files: tuple[Shard, ...]
    fidelity: Fidelity
    capture: dict[str, Any]
    """What the capturing stage measured beside, such as the teacher's held-out loss."""

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shard_files)


def shard_name(index: int) -> str:
    """File of a shard."""
    return f"shard-{index:06d}.bin"


def fix_spec(folder: Folder, spec: LogitSpec, learn: Callable[[], Ranks] | None) -> tuple[Ranks, str]:
    """Publish spec and rank tables where none are, and return the tables that hold, with their checksum.

    `learn` is called only where there are none. The first of several writers wins; the others take its tables.

    Raises:
        StoreMismatch: the folder belongs to a store with another spec.
        StoreDamaged: the file there is not what was written.
    """
    place = folder.place(RANKS_FILE)
    if not place.exists():
        ranks = learn() if learn else Ranks.from_counts(np.zeros(spec.vocabulary, np.int64))
        if ranks.vocabulary != spec.vocabulary:
            raise StoreMismatch(f"rank tables of {ranks.vocabulary} ids, the vocabulary has {spec.vocabulary}")
        if len(ranks.id_of) > 1 and not CODECS[spec.codec].tables:
            raise StoreMismatch(f"codec {spec.codec} has one rank table, not {len(ranks.id_of)}")
        meta = {"spec": spec.model_dump(mode="json", exclude_none=True)}
        write_shard_file(place, ranks.blocks(), meta, first_wins=True)
    held, ranks, digest = read_spec(folder)
    difference = first_difference(held, spec)
    if difference:
        raise StoreMismatch(
            f"{folder}: belongs to another logit store: {difference}",
            remedy="write to another folder, or delete this one",
        )
    return ranks, digest


def read_spec(folder: Folder) -> tuple[LogitSpec, Ranks, str]:
    """Spec, rank table and its checksum, as fixed in a folder.

    Raises:
        StoreMissing: no logit store there.
        StoreDamaged, StoreMismatch: as `ShardReader`.
    """
    try:
        reader = ShardReader(folder.file(RANKS_FILE))
    except StoreMissing as error:
        raise StoreMissing(f"{folder}: no logit store there") from error
    try:
        spec = LogitSpec.model_validate(reader.meta["spec"])
    except (KeyError, ValidationError) as error:
        raise StoreMismatch(f"{reader.name}: not the rank table of a logit store") from error
    try:
        ranks = Ranks.from_blocks([reader.block(number) for number in range(len(reader))], spec.vocabulary)
    except (ValueError, IndexError) as error:
        raise DamagedFileError(reader.name, str(error), 0) from error
    return spec, ranks, reader.digest


def first_difference(held: LogitSpec, wanted: LogitSpec) -> str:
    """`field is A, not B` for the first field that differs, or empty."""
    for name in LogitSpec.model_fields:
        a, b = getattr(held, name), getattr(wanted, name)
        if canonical(a) != canonical(b):
            return f"{name} is {a!r}, not {b!r}"
    return ""
