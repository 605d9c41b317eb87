"""Our decoders in Hugging Face's form: transformers computes the same logits from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers
from huggingface_hub import save_torch_state_dict

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.errors import EnvironmentFault
from pdforge.recipe.models import Architecture
from pdforge.titan.huggingface import huggingface_config, huggingface_weights
from pdforge.titan.inference import FrozenModel
from pdforge.titan.models import decoder_of

SHAPES = {
    "llama3": {"hidden": 64, "ffn": 96, "layers": 2, "heads": 4, "kv_heads": 2},
    "qwen3": {"hidden": 64, "ffn": 96, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 24},
}


def saved(folder: Path, architecture: Architecture) -> FrozenModel:
    """A model with weights that are nobody's defaults, through a checkpoint."""
    spec = decoder_of(architecture, vocabulary=97, sequence_length=48)
    with torch.device("meta"):
        model = spec.model.build()
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        model.init_weights(buffer_device=None)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    dcp.save(model.state_dict(), checkpoint_id=str(folder / "step-1"), no_dist=True)
    return FrozenModel(spec, weights=folder / "step-1", device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama3", "qwen3"])
def test_transformers_reads_the_same_model(tmp_path, family, tied, dtype) -> None:
    model = saved(tmp_path, Architecture(family=family, tied_embeddings=tied, rope_theta=2e4, **SHAPES[family]))
    model.round_to(getattr(torch, dtype))
    weights = {name: weight.to(getattr(torch, dtype)) for name, weight in huggingface_weights(model).items()}
    assert ("lm_head.weight" in weights) is not tied
    out = tmp_path / "hf"
    out.mkdir()
    save_torch_state_dict(weights, out, metadata={"format": "pt"})
    config = huggingface_config(model.spec, sequence_length=48, rope_theta=2e4, dtype=dtype, separator=0)
    (out / "config.json").write_text(json.dumps(config))
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokens = torch.randint(0, 97, (2, 48), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(48)[None].expand(2, -1)
    ours = model.logits(model.hidden(tokens, positions))
    with torch.inference_mode():
        torch.testing.assert_close(theirs.eval()(tokens).logits, ours, rtol=0, atol=1e-5)
    cpu, single = torch.device("cpu"), torch.float32
    back = FrozenModel(model.spec, weights=out, huggingface=True, device=cpu, dtype=single).weights()
    assert all(torch.equal(back[name], weight) for name, weight in model.weights().items())


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    """Missing, of another shape, damaged: found before a teacher says anything."""
    model = saved(tmp_path, Architecture(family="qwen3", **SHAPES["qwen3"]))
    weights, out = huggingface_weights(model), tmp_path / "hf"

    def load() -> None:
        FrozenModel(model.spec, weights=out, huggingface=True, device=torch.device("cpu"), dtype=torch.float32)

    name = "model.layers.0.mlp.up_proj.weight"
    first = weights.pop(name)
    for given, said in ((None, "does not have it"), (first[1:].clone(), r"has the shape \[95, 64\]")):
        out.mkdir(exist_ok=True)
        more = {} if given is None else {name: given}
        save_torch_state_dict(weights | more, out, metadata={"format": "pt"})
        with pytest.raises(EnvironmentFault, match=f"teacher.model: the weight {name} of .* {said}"):
            load()
    (out / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EnvironmentFault, match=r"cannot read the weights in .*hf: "):
        load()
