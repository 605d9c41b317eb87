"""A student that is an exact copy of its teacher learns nothing: positions line up, from the store to the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchtitan.components.loss import ChunkedLossWrapper

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.distill.loss import means
from pdforge.distill.truncation import truncate
from pdforge.recipe.models import Objective, StandardLibraryCorpus, TrainedTokenizer
from pdforge.store.codec import LogitBlock
from pdforge.store.order import SampleOrder
from pdforge.store.spec import LogitSpec
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore
from pdforge.store.writer import LogitWriter
from pdforge.titan.loader import TEACHER, StoreLoader
from pdforge.titan.loss import DistillationLoss
from pdforge.titan.packing import pack
from tests.titan.test_parts import build

VOCABULARY, LENGTH, SAMPLES, TOP_K = 300, 48, 8, 20
COLUMNS = ("entropy", "standard_deviation")


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    made, _ = build("llama3", tied=False, vocabulary=VOCABULARY, length=LENGTH)
    with torch.no_grad():
        # far from uniform, and different at every position
        made.lm_head.weight.mul_(12)
    return made


@pytest.fixture(scope="module")
def stores(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A token store, and what the model says of it."""
    folder = tmp_path_factory.mktemp("stores")
    build_token_store(
        folder / "tokens",
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=200_000)],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=VOCABULARY),
        sequence_length=LENGTH,
        train_sequences=SAMPLES,
        validation_sequences=2,
        seed=0,
        identity="test",
        progress=None,
    )
    split = TokenStore.open(folder / "tokens").split("train")
    tokens, positions = split.get_batch(range(SAMPLES))
    logits = _logits(model, torch.from_numpy(tokens[:, :-1]).long(), torch.from_numpy(positions).long())
    spec = LogitSpec(
        identity="0" * 12,
        teacher="t",
        tokens="0" * 12,
        tokens_content=split.content,
        tokenizer="t",
        sequence_length=LENGTH,
        vocabulary=VOCABULARY,
        top_p=0.95,
        top_k=TOP_K,
        sequences=SAMPLES,
        shard_sequences=SAMPLES,
        teacher_dtype="float32",
        codec="lossless",
        columns=COLUMNS,
    )
    writer = LogitWriter(folder / "logits", spec)
    writer.write_shard(0, [_block(row) for row in logits])
    writer.finish({})
    return folder / "tokens", folder / "logits"


def _logits(model: torch.nn.Module, inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(inputs, positions=positions, attention_masks=model.get_attention_masks(positions=positions))


def _block(logits: torch.Tensor) -> LogitBlock:
    cut = truncate(logits, 0.95, TOP_K)
    count, ids, logprobs, mass = (getattr(cut, n).numpy() for n in ("count", "ids", "logprobs", "mass"))
    kept = np.arange(TOP_K) < count[:, None]
    q = torch.log_softmax(logits, -1)
    return LogitBlock(
        count.astype(np.uint16),
        ids[kept].astype(np.int32),
        logprobs[kept],
        mass,
        entropy=-(q.exp() * q).sum(-1).numpy(),
        standard_deviation=logits.std(-1, correction=0).numpy(),
    )


def _loader(stores: tuple[Path, Path], **options: object) -> StoreLoader:
    tokens, logits = map(str, stores)
    config = StoreLoader.Config(tokens=tokens, logits=logits, top_p=0.95, top_k=TOP_K, **options)
    return config.build(dp_world_size=1, dp_rank=0, seq_len=LENGTH, local_batch_size=SAMPLES)


def _distil(model: torch.nn.Module, stores: tuple[Path, Path], shift: int, **objective: object):
    """Gradient of the hidden states and the parts, at α=1, the teacher `shift` positions too late."""
    made = Objective.model_validate({"alpha": 1.0, **objective})
    spread = getattr(made.temperature, "kind", "") == "normkd"
    batch, labels = next(iter(_loader(stores, spread=spread)))
    teacher = [batch[key].roll(shift, 1) for key in TEACHER if key in batch]
    config = DistillationLoss.Config(objective=made, vocabulary=VOCABULARY)
    loss = ChunkedLossWrapper.Config(num_chunks=4, loss_fn=config).build()
    loss.set_lm_head(model.lm_head)
    loss.loss_fn.start_step(1, 1)
    model._skip_lm_head = True
    try:
        hidden = _logits(model, batch["input"], batch["positions"]).requires_grad_()
    finally:
        model._skip_lm_head = False
    value, _ = loss(hidden, pack(labels, *teacher), torch.tensor(float(labels.numel())))
    value.backward()
    return hidden.grad, means(loss.loss_fn.sums)


@pytest.mark.parametrize("loss", ["kld", "reverse_kld", "jsd", "mse"])
def test_an_exact_copy_of_the_teacher_learns_nothing(model, stores, loss) -> None:
    gradient, parts = _distil(model, stores, 0, loss={"kind": loss}, tail="ghost")
    shifted, others = _distil(model, stores, 1, loss={"kind": loss}, tail="ghost")
    assert gradient.abs().max() <= 1e-3 * shifted.abs().max()
    assert abs(parts["kd_loss"]) <= 1e-5
    assert parts["agreement"] == 1
    assert abs(parts["kl"]) <= 1e-5
    assert others["agreement"] < 0.5
    assert others["kl"] > 0.1


def test_the_spread_of_the_teachers_logits_reaches_the_temperature(model, stores) -> None:
    _, parts = _distil(model, stores, 0, temperature={"kind": "normkd", "norm": 0.5})
    tokens, positions = TokenStore.open(stores[0]).split("train").get_batch(range(SAMPLES))
    logits = _logits(model, torch.from_numpy(tokens[:, :-1]).long(), torch.from_numpy(positions).long())
    # stored with 11 bits
    assert parts["temperature"] == pytest.approx(0.5 * float(logits.std(-1, correction=0).mean()), rel=1e-3)


def test_the_filter_takes_the_teacher_from_the_surest_positions(stores) -> None:
    plain, _ = next(iter(_loader(stores)))
    filtered, labels = next(iter(_loader(stores, skip_lowest_entropy=0.25)))
    gone = (filtered["teacher_logprobs"] == -torch.inf).all(-1)
    assert not (plain["teacher_logprobs"] == -torch.inf).all(-1).any()
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.01)
    # the surest positions: their kept tokens say so themselves
    top = plain["teacher_logprobs"].amax(-1)
    assert top[gone].mean() > top[~gone].mean()
    assert torch.equal(filtered["teacher_logprobs"][~gone], plain["teacher_logprobs"][~gone])
    assert (labels != -100).all()


def test_in_a_later_epoch_each_sample_has_its_own_teacher(stores) -> None:
    (first, _), (second, _) = _loader(stores, samples=2 * SAMPLES)
    order = SampleOrder(SAMPLES, 0)
    shuffled = [order[SAMPLES + place] for place in range(SAMPLES)]
    assert shuffled != list(range(SAMPLES))
    for name in ("input", *TEACHER[:2]):
        assert torch.equal(second[name], first[name][shuffled]), name


def test_the_filter_is_the_same_on_any_number_of_processes(stores) -> None:
    tokens, logits = map(str, stores)
    config = StoreLoader.Config(tokens=tokens, logits=logits, top_p=0.95, top_k=TOP_K, skip_lowest_entropy=0.25)
    whole, _ = next(iter(config.build(dp_world_size=1, dp_rank=0, seq_len=LENGTH, local_batch_size=SAMPLES)))
    half = SAMPLES // 2
    parts = [config.build(dp_world_size=2, dp_rank=r, seq_len=LENGTH, local_batch_size=half) for r in range(2)]
    joined = torch.cat([next(iter(part))[0]["teacher_logprobs"] for part in parts])
    assert torch.equal(joined, whole["teacher_logprobs"])
