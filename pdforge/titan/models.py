"""Decoder shapes of a recipe as torchtitan models. The builders used here are torchtitan 0.3.0's own, private names
included.
"""

from __future__ import annotations

from typing import Literal

from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, CosSinRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.llama3 import (
    _EMBEDDING_INIT,
    _EMBEDDING_SKIP_INIT,
    _NORM_INIT,
    Llama3Model,
    _build_llama3_layers,
    _output_linear_init,
    parallelize_llama,
)
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.models.qwen3 import Qwen3Model, _build_qwen3_layers, _qwen3_norm, parallelize_qwen3
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from pdforge.recipe.models import Architecture
from pdforge.titan.cpu import use_sum_reduction

ATTENTION = "flex"
"""FlexAttention: the one backend with exact document masks that also runs under context parallelism."""


def decoder_of(architecture: Architecture, *, vocabulary: int, sequence_length: int) -> ModelSpec:
    """`decoder` of a recipe's architecture, with its defaults worked out."""
    return decoder(
        family=architecture.family,
        vocabulary=vocabulary,
        sequence_length=sequence_length,
        hidden=architecture.hidden,
        ffn=architecture.ffn,
        layers=architecture.layers,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads or architecture.heads,
        head_dim=architecture.head_dim or architecture.hidden // architecture.heads,
        rope_theta=architecture.rope_theta,
        tied_embeddings=architecture.tied_embeddings,
    )


def decoder(
    *,
    family: Literal["llama3", "qwen3"],
    vocabulary: int,
    sequence_length: int,
    hidden: int,
    ffn: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    rope_theta: float,
    tied_embeddings: bool,
) -> ModelSpec:
    """A dense decoder of any shape: SwiGLU, RMSNorm, grouped-query attention, rotary positions without scaling.

    `qwen3` normalises queries and keys and may choose `head_dim`; `llama3` has head_dim = hidden / heads.
    """
    embedding = Embedding.Config(
        num_embeddings=vocabulary,
        embedding_dim=hidden,
        # tied: the matrix is initialised once, as the output projection
        param_init=_EMBEDDING_SKIP_INIT if tied_embeddings else _EMBEDDING_INIT,
    )
    head = Linear.Config(in_features=hidden, out_features=vocabulary, param_init=_output_linear_init(hidden))
    shape = {"n_layers": layers, "dim": hidden, "n_heads": heads, "n_kv_heads": kv_heads, "hidden_dim": ffn}
    rope = {"max_seq_len": sequence_length, "theta": rope_theta}
    if family == "llama3":
        model = Llama3Model.Config(
            dim=hidden,
            vocab_size=vocabulary,
            enable_weight_tying=tied_embeddings,
            tok_embeddings=embedding,
            norm=RMSNorm.Config(normalized_shape=hidden, param_init=_NORM_INIT),
            lm_head=head,
            layers=_build_llama3_layers(
                **shape,
                rope=ComplexRoPE.Config(dim=hidden // heads, scaling="none", **rope),
                attn_backend=ATTENTION,
            ),
        )
    else:
        model = Qwen3Model.Config(
            dim=hidden,
            vocab_size=vocabulary,
            enable_weight_tying=tied_embeddings,
            tok_embeddings=embedding,
            norm=_qwen3_norm(hidden),
            lm_head=head,
            layers=_build_qwen3_layers(
                **shape, head_dim=head_dim, rope=CosSinRoPE.Config(dim=head_dim, **rope), attn_backend=ATTENTION
            ),
        )
    return ModelSpec(
        name=family,
        flavor="recipe",
        model=model,
        parallelize_fn=use_sum_reduction(parallelize_llama if family == "llama3" else parallelize_qwen3),
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=None,
        state_dict_adapter=Llama3StateDictAdapter if family == "llama3" else Qwen3StateDictAdapter,
    )
