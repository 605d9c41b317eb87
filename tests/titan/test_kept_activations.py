"""The plan's count of what autograd keeps of a block, against what it keeps of torchtitan's own block."""

from __future__ import annotations

import pytest
import torch

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.plan.memory import float32_of_a_block, kept_of_a_block
from pdforge.recipe.models import Architecture
from pdforge.titan.models import decoder_of

BATCH, LENGTH = 2, 128


def kept(architecture: Architecture) -> int:
    """Bytes of all storages that a forward pass keeps, parameters aside."""
    spec = decoder_of(architecture, vocabulary=97, sequence_length=LENGTH)
    with torch.device("meta"):
        model = spec.model.build()
    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    model._skip_lm_head = True
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(0, 97, (BATCH, LENGTH))
    positions = torch.arange(LENGTH).expand(BATCH, LENGTH).contiguous()
    masks = model.get_attention_masks(positions=positions)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, positions=positions, attention_masks=masks)
    return sum(held.values())


@pytest.mark.parametrize("family", ["llama3", "qwen3"])
def test_the_plans_count_is_autograds(family: str) -> None:
    """To the byte, once what only the CPU keeps is added: each norm's normalised input, and attention's dense mask."""
    shape = {"family": family, "hidden": 128, "ffn": 320, "heads": 4, "kv_heads": 2, "head_dim": 32}
    two, three = (kept(Architecture(layers=layers, **shape)) for layers in (2, 3))
    architecture = Architecture(layers=1, **shape)
    on_cpu = 2 * 128 + LENGTH + (4 * 32 + 2 * 32 if family == "qwen3" else 0)
    counted = 4 * (kept_of_a_block(architecture) + on_cpu) + float32_of_a_block(architecture)
    assert (three - two) / (BATCH * LENGTH) == counted
