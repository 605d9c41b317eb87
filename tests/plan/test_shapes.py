"""Shapes of teachers: each counts the parameters of the model that the library it was read from builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.plan.shapes import BUNDLED, TORCHTITAN, TRANSFORMERS, shape_of

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
    assert {*TITAN, *HUB} == {*BUNDLED}
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


SMALL = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
CLASSES = {
    "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "glm": "Glm", "smollm3": "SmolLM3",
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True, None], ids=["apart", "tied", "by default"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_directory_counts_what_transformers_builds_of_it(kind: str, tied: bool | None, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    of_type = getattr(transformers, f"{CLASSES[kind]}Config")
    of_type(**SMALL, **({} if tied is None else {"tie_word_embeddings": tied})).save_pretrained(tmp_path)
    if tied is None:  # older files do not have what is as usual
        file = tmp_path / "config.json"
        config = json.loads(file.read_text())
        for name in ("tie_word_embeddings", "attention_bias", "mlp_bias", "head_dim"):
            config.pop(name, None)
        file.write_text(json.dumps(config))
    model = getattr(transformers, f"{CLASSES[kind]}ForCausalLM")(of_type.from_pretrained(tmp_path))
    shape = shape_of(str(tmp_path))
    assert shape is not None
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (shape.vocabulary, shape.source) == (320, "its config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen3_moe"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"num_hidden_layers": "many"},
        {"hidden_size": None},
        {"vocab_size": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_of_a_directory_that_is_not_understood_nothing_is_guessed(change: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "llama", **SMALL}))
    assert shape_of(str(tmp_path)) is not None
    assert shape_of(str(tmp_path), "weights.gguf") is None
    file.write_text(json.dumps({"model_type": "llama", **SMALL, **change}))
    assert shape_of(str(tmp_path)) is None
    file.write_text("no JSON")
    assert shape_of(str(tmp_path)) is None
