"""The pieces of pdforge.titan that need no training run."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torchtitan.components.optimizer import LRSchedulersContainer

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.plan.estimate import checkpoint_bytes
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import LearningRateSchedule
from pdforge.recipe.parts.architecture import Architecture
from pdforge.recipe.sizes import parameter_count
from pdforge.schedules import learning_rate_factor, learning_rate_phases
from pdforge.titan.models import decoder, decoder_of
from pdforge.titan.packing import pack, unpack


@pytest.mark.parametrize("spread", [None, torch.tensor([[1.5, 0.0, torch.pi]])], ids=["", "spread"])
def test_packing_keeps_every_bit(spread) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[5, -100, 2**24 - 1]])
    ids = torch.randint(0, 2**24, (1, 3, 7), generator=generator).int()
    logprobs = -torch.rand(1, 3, 7, generator=generator) * 50
    logprobs[0, 1, 3:] = -torch.inf
    plain, [got] = unpack(pack(labels, ids, logprobs, spread), spread=spread is not None)
    assert torch.equal(plain, labels)
    assert torch.equal(got.ids, ids.long())
    assert torch.equal(got.logprobs, logprobs)
    assert got.spread is None if spread is None else torch.equal(got.spread, spread)


@pytest.mark.parametrize("deviations", [False, True])
def test_several_teachers_lie_one_behind_the_other(deviations) -> None:
    labels, ids = torch.tensor([[5, -100, 7]]), torch.arange(3 * 3 * 4).reshape(3, 1, 3, 4)
    logprobs, spread = -torch.rand(3, 1, 3, 4), torch.rand(1, 3, 3)
    joined = torch.cat(list(ids), -1), torch.cat(list(logprobs), -1)
    plain, got = unpack(pack(labels, *joined, spread if deviations else None), 3, spread=deviations)
    assert torch.equal(plain, labels)
    for number, each in enumerate(got):
        assert torch.equal(each.ids, ids[number])
        assert torch.equal(each.logprobs, logprobs[number])
        assert torch.equal(each.spread, spread[..., number]) if deviations else each.spread is None


@pytest.mark.parametrize("total", [7, 100, 146])
@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "wsd", "warmup": 0.1, "decay": 0.2, "floor": 0.1},
        {"schedule": "wsd", "warmup": 0.0, "decay": 0.0},
        {"schedule": "cosine", "warmup": 0.05, "floor": 0.0},
        {"schedule": "constant", "warmup": 0.5},
    ],
)
def test_the_plans_learning_rate_is_torchtitans(schedule, total) -> None:
    typed = TypeAdapter(LearningRateSchedule).validate_python(schedule)
    warmup, decay, floor = learning_rate_phases(typed, total)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    config = LRSchedulersContainer.Config(
        total_steps=total,
        warmup_steps=warmup,
        decay_ratio=decay / total,
        decay_type="cosine",
        min_lr_factor=floor,
    )
    theirs = config.build(optimizers=[optimizer], training_steps=total)
    for step in range(1, total + 1):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate_factor(typed, step, total), abs=1e-12)
        optimizer.step()
        theirs.step()


SHAPES = {
    "llama3": {"hidden": 64, "ffn": 96, "layers": 2, "heads": 4, "kv_heads": 2},
    "qwen3": {"hidden": 64, "ffn": 96, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 24},
}


def build(family: str, *, tied: bool, vocabulary: int = 97, length: int = 48) -> tuple[nn.Module, Architecture]:
    shape = {"head_dim": 16, **SHAPES[family]}
    spec = decoder(
        family=family,
        vocabulary=vocabulary,
        sequence_length=length,
        rope_theta=5e5,
        tied_embeddings=tied,
        **shape,
    )
    with torch.device("meta"):
        model = spec.model.build()
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    return model.eval(), Architecture(family=family, tied_embeddings=tied, **SHAPES[family])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama3", "qwen3"])
def test_the_plans_parameter_count_is_torchtitans(family, tied) -> None:
    model, architecture = build(family, tied=tied)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count(architecture, 97).total == parameters
    saved = sum(weight.numel() for weight in model.state_dict().values())
    assert checkpoint_bytes(architecture, 97) == 4 * saved + 8 * parameters


PAPER = {"330m": 0.334, "670m": 0.669, "1.9b": 1.866, "3.8b": 3.750, "6.8b": 6.820}
"""arXiv 2410.16215, Table 14: billions of parameters of the students; with embeddings, which count once where tied."""


@pytest.mark.parametrize("size", PAPER)
def test_students_of_the_paper(size: str) -> None:
    """The gallery's shapes: the paper's figures, by the plan and by torchtitan, which builds them without memory."""
    recipe = load_recipes("paper/sizes", variants=(f"{size}-lm",))[0].recipe
    architecture, vocabulary = recipe.student.architecture, recipe.data.tokenizer.vocabulary
    config = decoder_of(architecture, vocabulary=vocabulary, sequence_length=recipe.data.sequence_length).model
    with torch.device("meta"):
        model = config.build()
    count = parameter_count(architecture, vocabulary).total
    assert count == config.get_nparams_and_flops(model, recipe.data.sequence_length)[0]
    assert count == sum(parameter.numel() for parameter in model.parameters())
    # the paper rounds some of them up and others down
    assert count / 1e9 == pytest.approx(PAPER[size], abs=1e-3)


@pytest.mark.parametrize("family", ["llama3", "qwen3"])
def test_packed_documents_do_not_see_each_other(family) -> None:
    """Logits of the second document are the same bits whatever the first one says, and those it has alone."""
    model, _ = build(family, tied=False)
    first, second = 20, 28
    tokens = torch.randint(0, 97, (2, 48), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, :first] = torch.randint(0, 97, (2, first), generator=torch.Generator().manual_seed(2))
    positions = torch.cat([torch.arange(first), torch.arange(second)])[None].expand(2, -1)

    def logits(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        masks = model.get_attention_masks(positions=positions)
        with torch.no_grad():
            return model(tokens, positions=positions, attention_masks=masks)

    packed, changed = logits(tokens, positions), logits(other, positions)
    assert not torch.equal(packed[:, :first], changed[:, :first])
    assert torch.equal(packed[:, first:], changed[:, first:])
    alone = logits(tokens[:, first:], positions[:, first:])
    torch.testing.assert_close(packed[:, first:], alone, rtol=0, atol=1e-5)


def test_without_the_document_mask_they_would(monkeypatch) -> None:
    """The test above can fail: one document as far as the positions say, and the second half depends on the first."""
    model, _ = build("llama3", tied=False)
    tokens = torch.randint(0, 97, (1, 48), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[:, :20] = 0
    positions = torch.arange(48)[None]
    masks = model.get_attention_masks(positions=positions)
    with torch.no_grad():
        a, b = (model(t, positions=positions, attention_masks=masks) for t in (tokens, other))
    assert not torch.equal(a[:, 20:], b[:, 20:])
