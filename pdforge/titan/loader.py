"""Batches for torchtitan from a token store and, for distillation, a logit store.

One cursor, the number of samples the whole job has consumed, is the only state: it does not depend on the number of
processes, so a run may resume on any other. Step s of a run with global batch B reads positions (s-1)·B … s·B-1 of
`SampleOrder`; within a micro-step the ranks take contiguous parts of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.tools import utils

from pdforge.distill.loss import IGNORE_INDEX
from pdforge.recipe.columns import ENTROPY, QUANTILE_SEQUENCES, SPREAD
from pdforge.store.convergence import Convergence
from pdforge.store.logits import LogitStore
from pdforge.store.mixture import Mixture
from pdforge.store.order import SampleOrder
from pdforge.store.tokens import TokenSplit, TokenStore

PREFETCH = 2
"""Batches read ahead while the device works."""

TEACHER = ("teacher_ids", "teacher_logprobs", "teacher_spread")
"""What a batch may hold of the teacher, in the order of `pack`."""

SAMPLES = "samples"
"""The sample index of each row of a batch [B], for a teacher in this job."""


class PackedTokens(BaseTokenizer):
    """torchtitan asks for a tokenizer; a token store needs none."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        """Nothing to configure."""

    def __init__(self, config: Config, *, tokenizer_path: str) -> None:
        del config, tokenizer_path
        super().__init__()

    def encode(self, *_: Any, **__: Any) -> list[int]:
        """Never called: the store holds tokens."""
        raise TypeError("a token store is tokenised already")

    def decode(self, *_: Any, **__: Any) -> str:
        """Never called: nothing is decoded while training."""
        raise TypeError("a token store holds no text")

    def get_vocab_size(self) -> int:
        """Never called: the model's configuration holds the vocabulary."""
        raise TypeError("the vocabulary is part of the model's configuration")


class Pinned(Tensor):
    """A tensor in page-locked memory, whose copy to the device does not keep the host waiting."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def to(self, *arguments: Any, **options: Any) -> Tensor:
        """torch's, with a copy that is only enqueued; nobody writes to a batch that was handed out."""
        return super().to(*arguments, **{"non_blocking": True, **options})


class _Read(NamedTuple):
    """What is read of one teacher."""

    store: LogitStore
    top_p: float
    top_k: int


class StoreLoader(BaseDataLoader):
    """Yields `({"input", "positions"[, "teacher_ids", "teacher_logprobs"[, "teacher_spread"]]}, labels)`, all [B, L]
    (ids and log-probabilities: [B, L, K]; of T teachers [B, L, T·K] and deviations [B, L, T], K that of the largest).

    A pass ends after the last of so many samples, which may be the split several times, each time in another order;
    where they do not fill the last batch, rows without labels do, so that every rank makes the same number of steps.
    For a CUDA device batches are pinned, in the thread that reads ahead.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Where the samples come from."""

        tokens: str = ""
        """The token store."""
        split: Literal["train", "validation"] = "train"
        """Which part of the store."""
        samples: int | None = None
        """How many samples are read; None: the whole split, once."""
        conversations: str | None = None
        """A token store of conversations, of which samples are mixed in."""
        mix: tuple[int, int, int] = (0, 0, 0)
        """Of such a mixture: samples of conversations, samples of text, and the first of these in `tokens`."""
        first: int = 0
        """The first of them: a logit store may begin later."""
        logits: str | None = None
        """The logit store, if the objective needs one."""
        top_p: float = 1.0
        """Re-truncation on reading; at most what the store holds."""
        top_k: int = 0
        """Re-truncation on reading, and the fixed number of entries a position."""
        also: tuple[tuple[str, float, int], ...] = ()
        """Of several teachers those behind the first: logit store, top-p and top-k."""
        multiple: int = 1
        """A pass has a multiple of this many batches on every rank: a pipeline takes several at once."""
        spread: bool = False
        """Whether the objective needs the standard deviation of the teacher's logits."""
        named: bool = False
        """Whether a batch says which samples it holds: a teacher in this job must know."""
        skip_lowest_entropy: float | None = None
        """Part of the positions, those where the teacher's entropy is lowest, that lose their teacher."""
        infinite: bool = True
        """Set by torchtitan's validator; a pass ends after its last sample all the same."""

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        self._config = config
        self._world, self._rank, self._batch = dp_world_size, dp_rank, local_batch_size
        store = TokenStore.open(config.tokens)
        self.split = _samples_of(config, store)
        self.order = SampleOrder(len(self.split), store.manifest.seed, config.first)
        first = [(config.logits, config.top_p, config.top_k)] if config.logits else []
        # a store keeps its name when it is built again, from a corpus that may have moved on
        expect = {"tokens_content": store.manifest.content}
        self._teachers = [_Read(LogitStore.open(each[0], expect=expect), *each[1:]) for each in (*first, *config.also)]
        self._entries = max((each.top_k for each in self._teachers), default=0)
        self._samples = len(self.split) if config.samples is None else config.samples
        self._consumed = 0
        self._pin = utils.device_type == "cuda"
        self._columns = ([SPREAD] if config.spread else []) + ([ENTROPY] if config.skip_lowest_entropy else [])
        if config.skip_lowest_entropy:
            start, part = config.first, config.skip_lowest_entropy
            within = range(start, start + min(QUANTILE_SEQUENCES, self._samples, len(self.split) - start))
            self._low_entropies = [entropy_quantile(each.store, within, part) for each in self._teachers]

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        stride = self._world * self._batch
        whole = stride * self._config.multiple
        end = -(-self._samples // whole) * whole
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as reader:
            waiting: deque[Future[tuple[dict[str, Tensor], Tensor]]] = deque()
            read = self._consumed
            while self._consumed < end:
                while read < end and len(waiting) < PREFETCH:
                    first = read + self._rank * self._batch
                    waiting.append(reader.submit(self._read, range(first, first + self._batch)))
                    read += stride
                batch = waiting.popleft().result()
                # the cursor moves before the batch is handed out: a checkpoint made after the step must not repeat it
                self._consumed += stride
                yield batch

    def positions(self, batch: int) -> range:
        """This rank's positions in `order`, of its batch of that number, from 0, of the whole run."""
        first = (batch * self._world + self._rank) * self._batch
        return range(first, first + self._batch)

    def convergence(self) -> Convergence:
        """How the teacher converged while it stored what is read; raises StoreMismatch: its store does not say."""
        return Convergence.of(self._teachers[0].store.manifest, str(self._config.logits))

    def _read(self, wanted: range) -> tuple[dict[str, Tensor], Tensor]:
        present = [self.order[position] for position in wanted if position < self._samples]
        tokens, positions, learnt = self.split.get_labelled_batch(present or [0])
        packed = torch.from_numpy(tokens).long()
        inputs, labels = packed[:, :-1].contiguous(), packed[:, 1:].contiguous()
        labels[~torch.from_numpy(learnt)] = IGNORE_INDEX
        batch = {"input": inputs, "positions": torch.from_numpy(positions).long()}
        if self._teachers:
            each = [self._learnt(number, present or [0]) for number in range(len(self._teachers))]
            joined = (
                each[0] if len(each) == 1 else [np.concatenate(parts, axis=-1) for parts in zip(*each, strict=True)]
            )
            batch |= dict(zip(TEACHER, map(torch.from_numpy, joined), strict=False))
        if self._config.named:
            batch[SAMPLES] = torch.tensor(present or [0])
        if not present:
            labels = torch.full_like(labels, IGNORE_INDEX)
        batch, labels = _pad(batch, labels, len(wanted))
        if self._pin:
            batch, labels = {name: _pinned(part) for name, part in batch.items()}, _pinned(labels)
        return batch, labels

    def _learnt(self, number: int, samples: list[int]) -> list[NDArray[Any]]:
        """What teacher `number` says of B samples: ids [B, L, K], log-probabilities [B, L, K] and, where it is needed,
        the standard deviation [B, L], of several teachers [B, L, 1].
        """
        teacher = self._teachers[number]
        # the order of a position's entries means nothing to the loss, and the store's own is quicker to read
        ids, logprobs, _mass, *columns = teacher.store.get_batch(
            samples, top_p=teacher.top_p, top_k=teacher.top_k, ordered=False, columns=self._columns
        )
        if self._config.skip_lowest_entropy:
            logprobs[columns.pop() <= self._low_entropies[number]] = -np.inf
        if missing := self._entries - teacher.top_k:
            behind = ((0, 0), (0, 0), (0, missing))
            ids, logprobs = np.pad(ids, behind), np.pad(logprobs, behind, constant_values=-np.inf)
        return [ids, logprobs, *(column if len(self._teachers) == 1 else column[..., None] for column in columns)]

    def state_dict(self) -> dict[str, Any]:
        """The cursor, equal on every rank."""
        return {"samples_consumed": self._consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the samples consumed, on whatever number of processes."""
        if state_dict:
            self._consumed = int(state_dict["samples_consumed"])


def _samples_of(config: StoreLoader.Config, text: TokenStore) -> TokenSplit | Mixture:
    if config.conversations is None:
        return text.split(config.split)
    sequences, text_sequences, text_from = config.mix
    conversations = TokenStore.open(config.conversations)
    return Mixture(conversations, text, sequences=sequences, text_sequences=text_sequences, text_from=text_from)


def entropy_quantile(store: LogitStore, samples: range, part: float) -> float:
    """The entropy that `part` of the positions of these samples do not exceed, in nats.

    A token store is shuffled, so its first sequences are as good as any, and the same ones on every process, at every
    resume, and however many more the logit store holds.

    Raises:
        StoreMismatch: the store has no entropies.
    """
    entropies = [store.get(sample, ordered=False, columns=[ENTROPY])[-1] for sample in samples]
    return float(np.quantile(np.concatenate(entropies), part))


def _pinned(part: Tensor) -> Tensor:
    pinned: Tensor = part.pin_memory().as_subclass(Pinned)
    return pinned


def _pad(batch: dict[str, Tensor], labels: Tensor, rows: int) -> tuple[dict[str, Tensor], Tensor]:
    """Rows without labels behind a short last batch."""
    short = rows - labels.shape[0]
    if short:
        batch = {key: torch.cat([value, value[-1:].expand(short, *value.shape[1:])]) for key, value in batch.items()}
        labels = torch.cat([labels, torch.full((short, labels.shape[1]), IGNORE_INDEX)])
    return batch, labels
