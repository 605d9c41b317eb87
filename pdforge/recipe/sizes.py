"""Parameters of an architecture in plain arithmetic: what torchtitan's models count, without building one."""

from typing import NamedTuple

from pdforge.recipe.parts.architecture import Architecture


class ParameterCount(NamedTuple):
    """Parameters of a model."""

    total: int
    """All of them; tied embeddings count once."""
    embedding: int
    """The input embedding's part."""


def parameter_count(architecture: Architecture, vocabulary: int) -> ParameterCount:
    """Parameters of a model: no biases; RMSNorm before attention, feed-forward network and output projection.

    `qwen3` adds a norm of queries and one of keys, each as wide as a head.
    """
    hidden = architecture.hidden
    head = architecture.head_dim or hidden // architecture.heads
    query, key_value = architecture.heads * head, (architecture.kv_heads or architecture.heads) * head
    attention = 2 * hidden * query + 2 * hidden * key_value + (2 * head if architecture.family == "qwen3" else 0)
    block = attention + 3 * hidden * architecture.ffn + 2 * hidden
    embedding = vocabulary * hidden
    matrices = 1 if architecture.tied_embeddings else 2
    return ParameterCount(matrices * embedding + architecture.layers * block + hidden, embedding)
