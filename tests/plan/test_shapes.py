"""Bundled shapes: every one counts the parameters of the model that the library it was read from builds."""

from __future__ import annotations

import pytest

from pdforge.plan.shapes import TORCHTITAN, TRANSFORMERS, known_shapes, shape_of

torch = pytest.importorskip("torch")

TITAN = {
    "meta-llama/llama-3.2-1b": ("llama3", "_1b"),
    "meta-llama/llama-3.2-3b": ("llama3", "_3b"),
    "meta-llama/llama-3.1-8b": ("llama3", "_8b"),
    "meta-llama/llama-3.1-70b": ("llama3", "_70b"),
    "meta-llama/llama-3.1-405b": ("llama3", "_405b"),
    "qwen/qwen3-0.6b": ("qwen3", "_0_6b"),
    "qwen/qwen3-1.7b": ("qwen3", "_1_7b"),
    "qwen/qwen3-4b": ("qwen3", "_4b"),
    "qwen/qwen3-8b": ("qwen3", "_8b"),
    "qwen/qwen3-14b": ("qwen3", "_14b"),
    "qwen/qwen3-32b": ("qwen3", "_32b"),
}
HUB = {
    "zai-org/glm-4-9b-hf": "Glm",
    "meta-llama/llama-2-7b-hf": "Llama",
    "mistralai/mistral-7b-v0.1": "Mistral",
    "huggingfacetb/smollm3-3b": "SmolLM3",
}
"""Models that transformers' configurations describe by default."""


def test_every_shape_has_a_source_that_is_checked() -> None:
    assert {*TITAN, *HUB} == set(known_shapes())
    assert all(shape_of(name).source == TORCHTITAN for name in TITAN)
    assert all(shape_of(name).source == TRANSFORMERS for name in HUB)


@pytest.mark.parametrize("name", TITAN)
def test_torchtitans_count(name: str) -> None:
    import pdforge.titan  # noqa: F401, PLC0415 - prepares torchtitan for this device

    family, flavour = TITAN[name]
    module = pytest.importorskip(f"torchtitan.models.{family}")
    with torch.device("meta"):
        model = getattr(module, flavour)("flex").build()
    assert shape_of(name).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", HUB)
def test_transformers_count(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{HUB[name]}Config")()
    with torch.device("meta"):
        model = getattr(transformers, f"{HUB[name]}ForCausalLM")(config)
    shape = shape_of(name)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.vocabulary == config.vocab_size


def test_names() -> None:
    assert shape_of("THUDM/glm-4-9b-chat") == shape_of("zai-org/GLM-4-9B")
    assert shape_of("Qwen/Qwen3-8B-Base") == shape_of("qwen/qwen3-8b")
    assert shape_of("zai-org/GLM-4-32B-Base-0414") is None
    assert shape_of("zai-org/glm-4-9b-hf").parameters == 9_399_951_360
