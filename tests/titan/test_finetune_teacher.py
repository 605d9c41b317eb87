"""A teacher beside a fine-tuned student: from the mixture's samples to the gradient, in one process.

The teacher is a model of random weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchtitan.components.loss import ChunkedLossWrapper

import pdforge.titan.teacher
from pdforge.distill.loss import means
from pdforge.plan.jobs import ModelSource
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import (
    Architecture,
    JsonLinesCorpus,
    Objective,
    Sample,
    StandardLibraryCorpus,
    TopPTopK,
    TrainedTokenizer,
    Truncation,
)
from pdforge.recipe.parts.data import PretrainedTokenizer
from pdforge.store.encoder import SEPARATOR
from pdforge.store.tokenize import build_token_store
from pdforge.titan import live
from pdforge.titan.live import LiveTeacher
from pdforge.titan.loader import SAMPLES, StoreLoader
from pdforge.titan.loss import DistillationLoss
from pdforge.titan.packing import pack
from tests.titan.test_parts import build

VOCABULARY, LENGTH, ROWS = 300, 48, 8
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
CHAT = ChatFormat(template=TEMPLATE, bos=SEPARATOR, eos=SEPARATOR)
TRUNCATED = TopPTopK(top_p=0.95, top_k=20)


class Frozen:
    """A teacher of a model at hand."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The logits themselves."""
        logits: Tensor = self.model(
            tokens, positions=positions, attention_masks=self.model.get_attention_masks(positions=positions)
        )
        return logits

    def logits(self, hidden: Tensor) -> Tensor:
        """As they are."""
        return hidden


@pytest.fixture(scope="module")
def model() -> nn.Module:
    made, _ = build("llama3", tied=False, vocabulary=VOCABULARY, length=LENGTH)
    with torch.no_grad():
        # far from uniform, and different at every position
        made.lm_head.weight.mul_(12)
    return made


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Token stores of text and of conversations of two questions."""
    folder = tmp_path_factory.mktemp("stores")
    common = {"sequence_length": LENGTH, "validation_sequences": 2, "seed": 0, "identity": "test", "progress": None}
    text, chats = folder / "text", folder / "chats"
    build_token_store(
        text,
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=200_000)],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=VOCABULARY),
        train_sequences=16,
        **common,
    )
    rows = [
        [("user", "what is it?"), ("assistant", f"number {n}."), ("user", f"{n} is?"), ("assistant", "a number.")]
        for n in range(200)
    ]
    turns = [[{"role": role, "content": content} for role, content in row] for row in rows]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in turns))
    build_token_store(
        chats,
        corpus=[JsonLinesCorpus(kind="jsonl", path=str(folder / "chats.jsonl"), text="messages")],
        tokenizer=PretrainedTokenizer(path=str(text / "tokenizer.json")),
        chat=CHAT,
        train_sequences=12,
        **common,
    )
    return text, chats


def loader_of(stores: tuple[Path, Path]) -> StoreLoader:
    """Six samples of conversations and two of text."""
    text, chats = map(str, stores)
    config = StoreLoader.Config(tokens=text, conversations=chats, mix=(6, 2, 4), samples=ROWS, named=True)
    return config.build(dp_world_size=1, dp_rank=0, seq_len=LENGTH, local_batch_size=ROWS)


@pytest.fixture
def teach(model: nn.Module, stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """What a teacher, by default the model, says of the mixture's first batch; and that batch."""
    # a model of random weights knows nothing of any text
    monkeypatch.setattr(pdforge.titan.teacher, "NO_LANGUAGE_MODEL", float("inf"))
    shape = Architecture(hidden=64, ffn=96, layers=2, heads=4)
    source = ModelSource(architecture=shape, vocabulary=VOCABULARY, sequence_length=LENGTH, checkpoint="none", step=1)

    def taught(truncation: Truncation = TRUNCATED, teacher: nn.Module | None = None, micro: int = 3, **options: object):
        monkeypatch.setattr(live, "load_teacher", lambda *_, **__: Frozen(teacher or model))
        loader = loader_of(stores)
        config = LiveTeacher.Config(
            source=source,
            tokens=str(stores[0]),
            samples=ROWS,
            truncation=truncation,
            precision="float32",
            **options,
        )
        batch, labels = next(iter(loader))
        beside = LiveTeacher(config, torch.device("cpu"), None, micro, loader.split)
        return beside.teach(batch["input"], labels, batch["positions"], batch[SAMPLES]), batch, labels

    return taught


def gradient(model: nn.Module, batch: dict[str, Tensor], packed: Tensor, labelled: Tensor, **objective: object):
    """Of the final hidden states, and the objective's parts."""
    made = Objective.model_validate({"alpha": 0.5, **objective})
    loss = ChunkedLossWrapper.Config(
        num_chunks=4, loss_fn=DistillationLoss.Config(objective=made, vocabulary=VOCABULARY)
    ).build()
    loss.set_lm_head(model.lm_head)
    loss.loss_fn.start_step(1, 1)
    masks = model.get_attention_masks(positions=batch["positions"])
    model._skip_lm_head = True
    try:
        with torch.no_grad():
            hidden = model(batch["input"], positions=batch["positions"], attention_masks=masks)
    finally:
        model._skip_lm_head = False
    hidden.requires_grad_()
    value, _ = loss(hidden, packed, labelled.sum())
    value.backward()
    return hidden.grad, means(loss.loss_fn.sums)


OBJECTIVES = [
    {},
    {"loss": {"kind": "reverse_kld"}, "tail": "ghost"},
    {"loss": {"kind": "jsd"}, "tail": "label", "temperature": 2},
    {"loss": {"kind": "mse", "on": "logits"}},
    {"temperature": {"kind": "normkd"}},
    {"temperature": {"kind": "adakd_h"}},
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_what_the_teacher_says_of_questions_changes_no_bit(model, teach, objective) -> None:
    other, _ = build("llama3", tied=False, vocabulary=VOCABULARY, length=LENGTH)
    spread = getattr(Objective.model_validate(objective).temperature, "kind", "") == "normkd"
    said, batch, labels = teach(spread=spread)
    differently, _, _ = teach(teacher=other, spread=spread)
    labelled = labels != -100
    assert 0.2 < labelled.float().mean() < 0.8
    silent = [torch.zeros_like(part) if part.dtype != torch.float32 else part * 0 - torch.inf for part in said[:2]]

    def mixed(instead: list[Tensor], where: Tensor) -> Tensor:
        parts = [
            torch.where(where[..., None] if there.dim() == 3 else where, new, there)
            for new, there in zip([*instead, *said[len(instead) :]], said, strict=True)
        ]
        return pack(labels, *parts)

    expected, parts = gradient(model, batch, pack(labels, *said), labelled, **objective)
    assert expected.abs().max() > 0
    for instead in (differently, silent):
        found, theirs = gradient(model, batch, mixed(instead, ~labelled), labelled, **objective)
        assert torch.equal(found, expected)
        assert theirs == parts
    # and of answers it counts; questions themselves have no gradient
    changed, _ = gradient(model, batch, mixed(differently, labelled), labelled, **objective)
    assert not torch.equal(changed, expected)
    assert not expected[~labelled].any()


@pytest.mark.parametrize("loss", ["kld", "reverse_kld", "jsd", "mse"])
def test_a_teacher_that_is_the_student_teaches_nothing(model, teach, loss) -> None:
    objective = {"alpha": 1.0, "loss": {"kind": loss}, "tail": "ghost"}
    said, batch, labels = teach()
    labelled = labels != -100
    found, parts = gradient(model, batch, pack(labels, *said), labelled, **objective)
    shifted, others = gradient(model, batch, pack(labels, *(p.roll(1, 1) for p in said)), labelled, **objective)
    assert found.abs().max() <= 1e-3 * shifted.abs().max()
    assert abs(parts["kd_loss"]) <= 1e-5
    assert parts["agreement"] == 1
    assert others["kl"] > 0.1


def test_losses_are_means_over_the_positions_with_a_loss(model, teach) -> None:
    """Worked out from the whole distributions of the positions of answers and text."""
    _, batch, labels = teach()
    labelled = labels != -100
    teacher, _ = build("llama3", tied=False, vocabulary=VOCABULARY, length=LENGTH)
    others, _, _ = teach(TopPTopK(top_p=1.0, top_k=255), teacher=teacher)
    logits = Frozen(model).hidden(batch["input"], batch["positions"])[labelled]
    theirs = Frozen(teacher).hidden(batch["input"], batch["positions"])[labelled]
    kept = theirs.topk(255).indices
    p = torch.softmax((torch.log_softmax(theirs, -1) / 2).gather(1, kept), -1)
    q = torch.log_softmax(logits, -1).gather(1, kept)
    _, parts = gradient(model, batch, pack(labels, *others), labelled, temperature=2.0)
    assert parts["kd_loss"] == pytest.approx(float((p * (p.log() - q)).sum(-1).mean()), rel=1e-4)
    entropy = torch.nn.functional.cross_entropy(logits, labels[labelled])
    assert parts["lm_loss"] == pytest.approx(float(entropy), rel=1e-5)


def test_the_filter_leaves_out_a_part_of_the_positions_with_a_loss(teach) -> None:
    (_, logprobs), _, labels = teach(skip_lowest_entropy=0.25)
    gone, labelled = (logprobs == -torch.inf).all(-1), labels != -100
    assert float(gone[labelled].float().mean()) == pytest.approx(0.25, abs=0.02)
    # whatever the sequences that the teacher takes at once
    (_, again), _, _ = teach(skip_lowest_entropy=0.25, micro=8)
    assert torch.equal((again == -torch.inf).all(-1), gone)


def test_draws_are_those_of_the_sample(teach) -> None:
    truncation = Sample(kind="sample", draws=20, seed=3)
    (ids, logprobs), _, _ = teach(truncation)
    (same, _), _, _ = teach(truncation)
    (other, _), _, _ = teach(Sample(kind="sample", draws=20, seed=4))
    assert torch.equal(ids, same)
    assert not torch.equal(ids, other)
    assert torch.allclose(logprobs.exp().sum(-1), torch.ones(()), atol=1e-6)
