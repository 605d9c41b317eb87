"""Hugging Face's form of our decoders: weights under its names, and what `AutoModelForCausalLM` reads them by."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torchtitan.protocols.model_spec import ModelSpec

from pdforge.titan.inference import FrozenModel

Dtype = Literal["bfloat16", "float16", "float32"]

_CLASSES = {"llama3": ("llama", "LlamaForCausalLM"), "qwen3": ("qwen3", "Qwen3ForCausalLM")}


def huggingface_weights(model: FrozenModel) -> dict[str, Tensor]:
    """The model's weights under Hugging Face's names; a tied output projection is not among them."""
    adapter = model.spec.state_dict_adapter(model.spec.model, None)
    return {name: weight.contiguous() for name, weight in adapter.to_hf(model.weights()).items()}


def huggingface_config(
    spec: ModelSpec, *, sequence_length: int, rope_theta: float, dtype: Dtype, separator: int
) -> dict[str, Any]:
    """`config.json` of the model.

    Args:
        spec: what `decoder` returns.
        sequence_length: of the training.
        rope_theta: base of the rotary frequencies.
        dtype: of the weights.
        separator: id of the token that starts every document, and so ends the one before.
    """
    model = spec.model
    attention, kind = model.layers[0].attention, _CLASSES[spec.name]
    head_dim = attention.head_dim or model.dim // attention.n_heads
    return {
        "architectures": [kind[1]],
        "model_type": kind[0],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": separator,
        "eos_token_id": separator,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": model.dim,
        "initializer_range": 0.02,
        "intermediate_size": model.layers[0].feed_forward.w1.out_features,
        "max_position_embeddings": sequence_length,
        "mlp_bias": False,
        "num_attention_heads": attention.n_heads,
        "num_hidden_layers": len(model.layers),
        "num_key_value_heads": attention.n_kv_heads or attention.n_heads,
        "rms_norm_eps": model.norm.eps,
        # transformers 4 reads the first, 5 the second
        "rope_theta": rope_theta,
        "rope_parameters": {"rope_theta": rope_theta, "rope_type": "default"},
        "tie_word_embeddings": model.enable_weight_tying,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": model.vocab_size,
    }
