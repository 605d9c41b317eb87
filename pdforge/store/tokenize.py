"""Corpus to token store, by any number of tasks. Each step publishes what it finished: a killed build goes on there.

tokenizer.json     trained or copied, by task 0
.build/            encoded text (`pdforge.store.encoded`): unit u of the corpus by task u mod tasks
<split>-N.bin      sequences cut from the selected text, shuffled: by task N mod tasks
manifest.json      by task 0, when all is there

What is written depends on the corpus and the recipe alone, not on the number of tasks or on when they were killed.
A piece whose task does not get on is taken over by one that has to wait for it. Both may then write it: the bytes are
the same, and files appear whole. So task 0 alone ends every build, whoever else dies or never starts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdforge.errors import StoreError, StoreMismatch, StoreMissing
from pdforge.layout import TOKENIZER_FILE
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import Corpus, Tokenizer
from pdforge.store import corpus as texts
from pdforge.store.chat_encoder import ChatEncoder
from pdforge.store.encoded import EncodedText
from pdforge.store.encoder import Encoder, tokenizer_json
from pdforge.store.files import Folder, publish, remove_leftovers
from pdforge.store.manifest import read_manifest, write_manifest
from pdforge.store.pack import SplitPacker, shard_sequences, shares_of
from pdforge.store.selection import Selection, Source
from pdforge.store.tokens import KIND, SplitName, TokenManifest, content_hash, tokenizer_hash

Progress = Callable[[dict[str, Any]], None]

POLL_S = 0.2
"""Between two looks at what the other tasks have published."""

PATIENCE_S = 60.0
"""Without anything new from the other tasks before one that waits does their work: several times that of a piece."""


class BuildStopped(Exception):
    """The build was asked to stop; started again it goes on."""


@dataclass
class Task:
    """One of the tasks that build a store together, on one file system."""

    rank: int = 0
    ranks: int = 1
    stopped: Callable[[], bool] = lambda: False
    """Whether it has been asked to stop."""

    def __post_init__(self) -> None:
        self._given_up: set[int] = set()  # ranks whose work it has taken over
        self._seen: object = None
        self._since = time.monotonic()

    def owns(self, piece: int) -> bool:
        """Whether that piece of the work is this task's."""
        owner = piece % self.ranks
        return owner == self.rank or owner in self._given_up

    def check(self) -> None:
        """Raise BuildStopped where it has been asked to stop."""
        if self.stopped():
            raise BuildStopped

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for what only task 0 does; raises BuildStopped."""
        while not until():
            self.check()
            time.sleep(POLL_S)

    def wait_for(self, pieces: Sequence[int], *, seen: object) -> None:
        """Wait a little for pieces of other tasks: where `seen` has been the same for too long, they are this one's.

        Raises:
            BuildStopped: it was asked to stop.
        """
        self.check()
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        if time.monotonic() - self._since >= PATIENCE_S:
            self._given_up.update(piece % self.ranks for piece in pieces)
        time.sleep(POLL_S)


def build_token_store(
    output: Path,
    *,
    corpus: Sequence[Corpus],
    tokenizer: Tokenizer,
    sequence_length: int,
    train_sequences: int,
    validation_sequences: int,
    seed: int,
    identity: str,
    chat: ChatFormat | None = None,
    progress: Progress | None = None,
    task: Task | None = None,
) -> TokenManifest:
    """Build the token store at `output`, or what is missing of it, and return its manifest. Every task calls it.

    A source's text of a split is cut into sequences of tokens [i·L, (i+1)·L]: the last is the label of position L-1,
    and the first token of the next sequence. The held-out split takes the documents of lowest hash, so that identical
    documents are never in both. Sources of a mixture give sequences by their weights.
    With `chat` the corpus is one of conversations, which it makes text of; the tokens then say which carry loss.
    `progress` receives `{"phase", "done", "total", "unit"}`, of task 0.

    Raises:
        StoreError: the corpus holds too little text, or cannot be tokenized as asked.
        StoreMismatch: `output` holds the store of another stage.
        EnvironmentFault: a file or a package is missing.
        BuildStopped: the task was asked to stop.
    """
    task = task or Task()
    report = progress if progress and task.rank == 0 else lambda _: None
    found = _finished(output, identity)
    if found:
        shutil.rmtree(output / ".build", ignore_errors=True)
        return found
    _make(output / ".build")
    if task.ranks == 1:
        remove_leftovers(output)
        remove_leftovers(output / ".build")
    source = _tokenizer(output, tokenizer, corpus, task, report)
    builder = _Builder(
        output=output,
        encoder=ChatEncoder(source, tokenizer, chat) if chat else Encoder(source, tokenizer),
        tokenizer=tokenizer_hash(source),
        length=sequence_length,
        seed=seed,
        identity=identity,
        task=task,
        report=report,
    )
    try:
        found_texts = texts.sources(corpus, conversations=chat is not None)
        return builder.build(found_texts, train_sequences, validation_sequences)
    except StoreError:
        # Task 0 takes the encoded text away when the store is whole; another may be late, or write what is there.
        found = _finished(output, identity)
        if found:
            return found
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written: {error.strerror}", remedy="check free space and rights there"
        ) from error


def _finished(output: Path, identity: str) -> TokenManifest | None:
    try:
        manifest = read_manifest(Folder(output), KIND, TokenManifest)
    except StoreMissing:
        return None
    if manifest.identity != identity:
        raise StoreMismatch(f"{output}: identity is {manifest.identity!r}, not {identity!r}")
    return manifest


def _tokenizer(output: Path, tokenizer: Tokenizer, corpus: Sequence[Corpus], task: Task, report: Progress) -> bytes:
    path = output / TOKENIZER_FILE
    if task.rank == 0 and not path.exists():
        report({"phase": "tokenizer", "done": 0, "total": 1, "unit": "tokenizers"})
        publish(path, [tokenizer_json(tokenizer, corpus)])
    task.wait(path.exists)
    return path.read_bytes()


@dataclass(frozen=True)
class _Builder:
    output: Path
    encoder: Encoder | ChatEncoder
    tokenizer: str
    length: int
    seed: int
    identity: str
    task: Task
    report: Progress

    def build(self, found: Sequence[texts.WeightedUnits], train: int, validation: int) -> TokenManifest:
        shares = [source.share for source in found]
        sequences: dict[SplitName, list[int]] = {
            "train": shares_of(train, shares),
            "validation": shares_of(validation, shares),
        }
        selection = self._encode(found, sequences)
        if selection is None:
            return self._whole()
        packers = [
            SplitPacker(
                self.output,
                name,
                selection.streams(held_out=name == "validation"),
                sequences[name],
                dtype=self.encoder.dtype,
                length=self.length,
                seed=self.seed,
                identity=self.identity,
            )
            for name in sequences
        ]
        for name, packer in zip(sequences, packers, strict=True):
            self._pack(name, packer)
        return self._finish(packers) if self.task.rank == 0 else self._whole()

    def _encode(self, found: Sequence[texts.WeightedUnits], sequences: dict[SplitName, list[int]]) -> Selection | None:
        """Encode until both splits can be filled; None where the whole store turns out to be there."""
        key = [self.identity, self.tokenizer, self.seed]
        text = EncodedText(self.output / ".build", key, self.encoder.dtype, seed=self.seed)
        sources: list[Source] = []
        units: list[texts.Unit] = []
        for number, source in enumerate(found):
            train, validation = (
                sequences[name][number] * self.length + 1 if sequences[name][number] else 0 for name in sequences
            )
            numbers = range(len(units), len(units) + len(source.units))
            units += source.units
            sources.append(Source(source.name, text, numbers, train, validation))
        selection = Selection(sources)
        while not selection.complete():
            self._report_encoded(sources)
            self.task.check()
            if _finished(self.output, self.identity):
                return None
            unit = next((n for s in selection.wanting for n in self._open_units(s)), None)
            if unit is None:
                self._refuse_shortage(selection)
                waiting_for = [source.at for source in selection.wanting if source.at in source.units]
                self.task.wait_for(waiting_for, seen=[source.parts[-1:] for source in sources])
                continue
            for _ in text.encode(unit, units[unit](), self.encoder):
                self._report_encoded(sources)
                self.task.check()
                selection.complete()
                if not any(unit in source.units for source in selection.wanting):
                    break
        self._report_encoded(sources)
        return selection

    def _open_units(self, source: Source) -> Iterator[int]:
        """Units of a source that this task has to encode."""
        for unit in range(source.at, source.units.stop):
            if self.task.owns(unit) and (unit == source.at or source.text.parts_of(unit) is None):
                yield unit

    def _refuse_shortage(self, selection: Selection) -> None:
        lacks = selection.lacks()
        if lacks:
            raise StoreError(
                lacks, remedy="lower `data.train_tokens` or `data.validation_tokens`, or add text to `data.corpus`"
            )

    def _report_encoded(self, sources: Sequence[Source]) -> None:
        done = sum(min(source.tokens, source.train + source.validation) for source in sources)
        total = sum(source.train + source.validation for source in sources)
        self.report({"phase": "encode", "done": done, "total": total, "unit": "tokens"})

    def _pack(self, name: SplitName, packer: SplitPacker) -> None:
        def report(missing: int) -> None:
            done = max(0, packer.sequences - missing * packer.shard_sequences)
            self.report({"phase": f"pack {name}", "done": done, "total": packer.sequences, "unit": "sequences"})

        missing = packer.missing()
        while missing:
            report(len(missing))
            for number in packer.write([number for number in missing if self.task.owns(number)]):
                missing.remove(number)
                report(len(missing))
                self.task.check()
            if self.task.rank != 0:
                return
            missing = packer.missing()
            if missing:
                self.task.wait_for(missing, seen=(name, *missing))
        report(0)

    def _finish(self, packers: Sequence[SplitPacker]) -> TokenManifest:
        (train, train_sums), (validation, validation_sums) = (packer.finish() for packer in packers)
        facts: dict[str, Any] = {
            "identity": self.identity,
            "tokenizer": self.tokenizer,
            "vocabulary": self.encoder.vocabulary,
            "separator": self.encoder.separator,
            "sequence_length": self.length,
            "seed": self.seed,
            "dtype": self.encoder.stored,
            "shard_sequences": shard_sequences(self.length, self.encoder.dtype),
        }
        content = content_hash(facts, [train_sums, validation_sums])
        manifest = TokenManifest(**facts, train=train, validation=validation, content=content)
        # others may still write what task 0 has taken over from them
        remove_leftovers(self.output, untouched_s=PATIENCE_S if self.task.ranks > 1 else 0)
        write_manifest(Folder(self.output), KIND, manifest)
        shutil.rmtree(self.output / ".build", ignore_errors=True)
        return manifest

    def _whole(self) -> TokenManifest:
        """The manifest, when task 0 has written it."""
        found: list[TokenManifest] = []

        def there() -> bool:
            found.extend(filter(None, [_finished(self.output, self.identity)]))
            return bool(found)

        self.task.wait(there)
        return found[0]
