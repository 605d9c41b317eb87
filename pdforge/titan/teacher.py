"""The frozen teacher of a capture or of a student's job, wherever its weights come from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from pdforge.distill.capture import Keeper, Kept
from pdforge.errors import StageFailed
from pdforge.plan.jobs import HuggingFaceSource, ModelSource
from pdforge.pretrained import library, model_folder
from pdforge.recipe.models import Truncation
from pdforge.store.tokens import SplitName, TokenStore
from pdforge.teachers.huggingface import HuggingFaceModel
from pdforge.teachers.tokenizers import require_same_tokenizer, teacher_tokenizer, vocabulary_size
from pdforge.titan.inference import load

HELDOUT_POSITIONS = 1 << 15
"""Held-out positions, at most, on which a teacher is measured."""

NO_LANGUAGE_MODEL = 0.75
"""Perplexity, as a part of the vocabulary, from which a teacher knows nothing of this text."""

_COMPARED = 16
"""Held-out sequences on whose text teacher and student must read the same ids."""


class Teacher(Protocol):
    """A model without gradients that sees packed sequences as the student does."""

    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final hidden states [B, L, …] of tokens [B, L] with positions [B, L] that restart with each document."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., …]."""
        ...


@dataclass(frozen=True)
class Signal:
    """What a frozen teacher says of sequences of a token store.

    Attributes:
        model: the teacher.
        tokens: the token store.
        truncation: what is kept of its distributions.
        vocabulary: V.
        length: L, of a sequence.
        place: the teacher's field in the recipe, for messages.
    """

    model: Teacher
    tokens: TokenStore
    truncation: Truncation
    vocabulary: int
    length: int
    place: str = "teacher.model"

    def of(
        self, inputs: Tensor, labels: Tensor, positions: Tensor, samples: Tensor, columns: tuple[str, ...] = ()
    ) -> Kept:
        """What is kept of B sequences, on the teacher's device: [B, L], or [B, L, K] padded.

        Args:
            inputs: int64 [B, L].
            labels: int64 [B, L].
            positions: int64 [B, L], restarting at 0 with each document.
            samples: int64 [B], sample indices.
            columns: figures of the whole distribution.
        """
        hidden = self.model.hidden(inputs, positions)
        keeper = Keeper(self.truncation, columns)
        return keeper.keep_sequences(hidden, labels, samples, self.model.logits, self.vocabulary)

    def of_samples(self, split: SplitName, samples: range, columns: tuple[str, ...] = ()) -> Kept:
        """`of` the sequences with these indices."""
        tokens, positions = self.tokens.split(split).get_batch(samples)
        packed = torch.from_numpy(tokens).long()
        return self.of(
            packed[:, :-1], packed[:, 1:], torch.from_numpy(positions).long(), torch.tensor(samples), columns
        )

    def column(self, name: str, split: SplitName, samples: range, micro: int) -> NDArray[np.float64]:
        """One figure of every position of these samples, `micro` sequences at a time."""
        parts = [
            self.of_samples(split, samples[first : first + micro], (name,))[name].cpu().numpy().ravel()
            for first in range(0, len(samples), micro)
        ]
        return np.concatenate(parts).astype(np.float64)

    def require_language_model(self, micro: int) -> float:
        """The teacher's held-out loss, nats a token, if it is a language model of this text.

        Of the first held-out sequences, to six digits, so that the order of sums does not show.

        Raises:
            StageFailed: its perplexity is near the vocabulary's size, or not a number.
        """
        held = len(self.tokens.split("validation"))
        count = min(held, max(1, HELDOUT_POSITIONS // self.length))
        loss = round(-float(self.column("label_logprob", "validation", range(count), micro).mean()), 6)
        perplexity = math.exp(min(loss, 700.0))
        if perplexity < NO_LANGUAGE_MODEL * self.vocabulary:
            return loss
        raise StageFailed(
            f"{self.place}: its perplexity on held-out text is {perplexity:,.0f}, of {self.vocabulary:,} tokens: "
            "it is no language model of this text, and nothing was captured",
            remedy="check that its weights are whole, that its tokenizer is the one it was trained with, and its "
            "language",
        )


def load_teacher(
    source: ModelSource | HuggingFaceSource,
    tokens: TokenStore,
    device: torch.device,
    dtype: torch.dtype,
    *,
    mesh: DeviceMesh | None = None,
) -> Teacher:
    """The teacher, sharded over a mesh where one is given: `hidden` is then a collective of its processes.

    Args:
        source: where its weights are.
        tokens: the token store that it will see; its tokenizer must be the teacher's.
        device: where it runs.
        dtype: of weights and activations.
        mesh: of one dimension.

    Raises:
        EnvironmentFault: it cannot be had, or is not whole.
        StoreMismatch: its tokenizer is another one.
    """
    student = tokens.tokenizer()
    if isinstance(source, ModelSource):
        if source.step is None:
            theirs = teacher_tokenizer(Path(source.checkpoint), None, source.place)
            require_same_tokenizer(theirs, student, _heldout_texts(tokens), source.place)
        return load(source, device, dtype, mesh=mesh)
    folder = model_folder(source.path, source.revision, source.place, gguf=source.gguf_file, code=source.code)
    theirs = teacher_tokenizer(folder, source.gguf_file, source.place)
    require_same_tokenizer(theirs, student, _heldout_texts(tokens), source.place)
    return HuggingFaceModel(
        folder,
        place=source.place,
        device=device,
        dtype=dtype,
        known=vocabulary_size(student),
        vocabulary=source.vocabulary,
        sequence_length=source.sequence_length,
        gguf=source.gguf_file,
        code=source.code,
        mesh=mesh,
    )


def _heldout_texts(tokens: TokenStore) -> list[str]:
    """Pieces of held-out documents, as many as a few sequences hold."""
    decoder = library("tokenizers").Tokenizer.from_str(tokens.tokenizer())
    split, separator = tokens.split("validation"), tokens.manifest.separator
    rows = split.get_batch(range(min(_COMPARED, len(split))))[0]
    ids = rows.flatten()
    pieces = np.split(ids, np.flatnonzero(ids == separator))
    return [decoder.decode(piece[piece != separator].tolist(), skip_special_tokens=False) for piece in pieces]
