"""The loader: one order of samples, whatever the number of processes, and from wherever it resumes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torchtitan.tools import utils

import pdforge.titan  # noqa: F401 - prepares torchtitan for this device
from pdforge.distill.loss import IGNORE_INDEX
from pdforge.errors import StoreMismatch
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import PretrainedTokenizer, StandardLibraryCorpus, TrainedTokenizer
from pdforge.store.order import SampleOrder
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore
from pdforge.titan.loader import Pinned, StoreLoader
from tests.store import made

LENGTH, SAMPLES = 16, 23


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens")
    build_token_store(
        path,
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=200_000)],
        tokenizer=TrainedTokenizer(kind="trained", vocabulary=300),
        sequence_length=LENGTH,
        train_sequences=SAMPLES,
        validation_sequences=5,
        seed=0,
        identity="test",
        progress=None,
    )
    return path


def _loader(
    store: Path, ranks: int, rank: int, batch: int, split: str = "train", samples: int | None = None
) -> StoreLoader:
    config = StoreLoader.Config(tokens=str(store), split=split, samples=samples)
    return config.build(dp_world_size=ranks, dp_rank=rank, seq_len=LENGTH, local_batch_size=batch)


def _global_order(
    store: Path, ranks: int, batch: int, skip: int = 0, split: str = "train", samples: int | None = None
) -> torch.Tensor:
    """Inputs of all labelled rows in the order of the global batches; behind `skip` consumed samples."""
    loaders = [_loader(store, ranks, rank, batch, split, samples) for rank in range(ranks)]
    for loader in loaders:
        loader.load_state_dict({"samples_consumed": skip})
    steps = zip(*loaders, strict=True)
    rows = [torch.cat([batch["input"], labels], 1) for step in steps for batch, labels in step]
    stacked = torch.cat(rows)
    return stacked[stacked[:, -1] != IGNORE_INDEX]


@pytest.mark.parametrize(("ranks", "batch"), [(1, 1), (1, 4), (2, 2), (3, 4), (4, 1)])
def test_order_does_not_depend_on_processes(store, ranks, batch) -> None:
    reference = _global_order(store, 1, SAMPLES)
    assert len(reference) == SAMPLES
    assert torch.equal(_global_order(store, ranks, batch), reference)


@pytest.mark.parametrize(("ranks", "batch"), [(1, 4), (2, 2)])
def test_resumes_behind_what_was_consumed(store, ranks, batch) -> None:
    assert torch.equal(_global_order(store, ranks, batch, skip=8), _global_order(store, 1, SAMPLES)[8:])


@pytest.mark.parametrize(
    ("ranks", "batch", "skip"), [(1, 4, 0), (2, 3, 0), (3, 4, 0), (2, 3, 18), (1, 4, 24), (1, 5, 45)]
)
def test_several_epochs(store, ranks, batch, skip) -> None:
    """Each reads everything once, in an order of its own: the same on every number of processes, and when resumed
    before, at, or behind the end of an epoch.
    """
    once, order = _global_order(store, 1, SAMPLES), SampleOrder(SAMPLES, 0)
    wanted = [order[position] for position in range(2 * SAMPLES + 5)]
    assert wanted[:SAMPLES] == list(range(SAMPLES)) == sorted(wanted[SAMPLES : 2 * SAMPLES])
    assert wanted[SAMPLES : 2 * SAMPLES] != wanted[:SAMPLES]
    found = _global_order(store, ranks, batch, skip, samples=len(wanted))
    assert torch.equal(found, once[wanted[skip:]])


def test_cursor_counts_what_was_handed_out(store) -> None:
    loader = _loader(store, 2, 1, 3)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert loader.state_dict() == {"samples_consumed": 12}


def test_every_rank_makes_as_many_steps_and_padding_has_no_labels(store) -> None:
    steps = [list(_loader(store, 2, rank, 4, "validation")) for rank in range(2)]
    assert len(steps[0]) == len(steps[1]) == 1
    (_, first), (inputs, second) = steps[0][0], steps[1][0]
    assert (first != IGNORE_INDEX).all()
    assert (second[0] != IGNORE_INDEX).all()
    assert (second[1:] == IGNORE_INDEX).all()
    assert inputs["input"].shape == (4, LENGTH)


def test_labels_are_the_next_tokens(store) -> None:
    batch, labels = next(iter(_loader(store, 1, 0, 4)))
    assert torch.equal(batch["input"][:, 1:], labels[:, :-1])
    assert (batch["positions"][:, 0] == 0).all()


@pytest.mark.parametrize(("ranks", "batch"), [(1, 4), (3, 2)])
def test_a_batch_can_be_named_without_reading_it(store, ranks, batch) -> None:
    everything = _global_order(store, 1, SAMPLES)
    for rank in range(ranks):
        loader = _loader(store, ranks, rank, batch)
        for number, (inputs, labels) in enumerate(loader):
            rows = torch.cat([inputs["input"], labels], 1)[: max(0, SAMPLES - loader.positions(number).start)]
            assert torch.equal(rows, everything[loader.positions(number).start : loader.positions(number).stop])


@pytest.fixture(scope="module")
def conversations(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conversations")
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    build_token_store(
        path,
        corpus=[StandardLibraryCorpus(kind="python-stdlib", bytes=1_000_000)],
        tokenizer=PretrainedTokenizer(path=str(store / "tokenizer.json"), vocabulary=300),
        sequence_length=LENGTH,
        train_sequences=30,
        validation_sequences=2,
        seed=0,
        identity="chat",
        chat=ChatFormat(template=template, bos="<|endoftext|>", eos="<|endoftext|>"),
    )
    return path


def test_of_conversations_only_answers_have_labels(store, conversations) -> None:
    config = StoreLoader.Config(tokens=str(store), conversations=str(conversations), mix=(30, 10, 12), samples=40)
    split, text = TokenStore.open(conversations).split("train"), TokenStore.open(store).split("train")
    tokens, positions, learnt = split.get_labelled_batch(range(30))
    orders = []
    for ranks, batch in ((1, 40), (2, 5)):
        loaders = [
            config.build(dp_world_size=ranks, dp_rank=rank, seq_len=LENGTH, local_batch_size=batch)
            for rank in range(ranks)
        ]
        read = [part for step in zip(*loaders, strict=True) for part in step]
        stack = [torch.cat([batch[name] for batch, _ in read]) for name in ("input", "positions")]
        orders.append([*stack, torch.cat([labels for _, labels in read])])
    inputs, places, labels = orders[0]
    assert all(torch.equal(a, b) for a, b in zip(*orders, strict=True))
    chats = [row for row in range(40) if row % 4 != 0]
    assert torch.equal(inputs[chats], torch.from_numpy(tokens[:, :-1]).long())
    assert torch.equal(places[chats], torch.from_numpy(positions).long())
    expected = torch.from_numpy(tokens[:, 1:]).long()
    assert 0.1 < learnt.mean() < 0.9
    expected[~torch.from_numpy(learnt)] = IGNORE_INDEX
    assert torch.equal(labels[chats], expected)
    assert torch.equal(labels[::4], torch.from_numpy(text.get_batch(range(12, 22))[0][:, 1:]).long())


def test_distributions_of_another_text_are_refused(store, tmp_path) -> None:
    """As of a token store that was deleted, and built again from a corpus that had moved on."""
    content = TokenStore.open(store).manifest.content
    for name, held in (("same", content), ("other", "c0ffee")):
        made.store(tmp_path / name, made.spec(tokens_content=held, sequence_length=LENGTH, sequences=SAMPLES))
    same, other = (str(tmp_path / name) for name in ("same", "other"))
    StoreLoader.Config(tokens=str(store), logits=same).build(dp_world_size=1, dp_rank=0, local_batch_size=1)
    for config in (
        StoreLoader.Config(tokens=str(store), logits=other),
        StoreLoader.Config(tokens=str(store), logits=same, also=((other, 0.95, 20),)),
    ):
        with pytest.raises(StoreMismatch, match=rf"{other}: tokens_content is 'c0ffee', this run needs '{content}'"):
            config.build(dp_world_size=1, dp_rank=0, local_batch_size=1)


def test_batches_are_pinned_for_cuda_only_in_the_thread_that_reads_ahead(store, monkeypatch) -> None:
    """Page-locked memory needs a CUDA device: that it is asked for, where, and for all of a batch."""
    asked = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(threading.current_thread().name)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    plain, labels = next(iter(_loader(store, 1, 0, 4)))
    assert not asked
    monkeypatch.setattr(utils, "device_type", "cuda")
    batch, pinned_labels = next(iter(_loader(store, 1, 0, 4)))
    assert all(name.startswith("loader") for name in asked)
    assert len(asked) >= len(batch) + 1
    assert {type(part) for part in (*batch.values(), pinned_labels)} == {Pinned}
    for name, part in batch.items():
        assert torch.equal(part, plain[name])
    assert torch.equal(pinned_labels, labels)


def test_a_pinned_batch_is_copied_without_waiting(monkeypatch) -> None:
    copies, copy = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda *given, **how: (copies.append(how), copy(*given, **how))[1])
    moved = torch.ones(3).as_subclass(Pinned).to(torch.device("meta"))
    assert (type(moved), moved.device.type) == (torch.Tensor, "meta")
    assert copies == [{"non_blocking": True}]
    # what is worked out of it is a plain tensor
    assert type(torch.ones(3).as_subclass(Pinned) == 1) is torch.Tensor


def test_what_is_read_ahead_is_not_consumed(store) -> None:
    loader = _loader(store, 1, 0, 2)
    next(iter(loader))
    assert loader.state_dict() == {"samples_consumed": 2}
