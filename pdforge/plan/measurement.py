"""What one finished stage measured, as it is kept."""

from pydantic import BaseModel, ConfigDict


class Measured(BaseModel):
    """One finished stage on one profile. What it could not tell is None; keys of later versions are ignored."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    profile: str
    gpu: str | None = None
    device: str
    kind: str
    title: str
    identity: str
    work: str
    """Names everything that changes how long a token takes: stages that agree on it take the same time."""
    processes: int
    tokens: int | None = None
    """That it went through itself."""
    tokens_per_second: float | None = None
    """Of all processes together, without the start."""
    flops_per_second: float | None = None
    """Model FLOPs, of one process."""
    products_per_second: float | None = None
    """FLOPs of one process while it computes: of a training without what it waits for, and what is computed again."""
    seconds: float | None = None
    """From the start of its only attempt to its end; None where there were several."""
    overhead: float | None = None
    """What of `seconds` was not spent on tokens: start, held-out loss, saving."""
    peak_memory: int | None = None
    """Bytes of one GPU that tensors took at most."""
    entries: float | None = None
    """Kept entries a position of a logit store."""
    bytes_an_entry: float | None = None
    bytes: int | None = None
    """On disk: of a store, or of one checkpoint."""
    store: str = ""
    """Names what sets the size of a logit store."""
    finished: float
    """Unix seconds."""
