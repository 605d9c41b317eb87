"""Rules on models and tokenizers that come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from pdforge.diagnostics import Severity
from pdforge.recipe.hub import is_hub_id
from pdforge.recipe.models import (
    HuggingFaceConversations,
    HuggingFaceCorpus,
    HuggingFaceTeacher,
    MixtureCorpus,
    PretrainedTokenizer,
    Recipe,
    TrainedTokenizer,
)
from pdforge.recipe.pupils import taught
from pdforge.recipe.rules.registry import Finding, rule

_FromHub = HuggingFaceTeacher | PretrainedTokenizer | HuggingFaceCorpus | HuggingFaceConversations


@rule("PD141", Severity.ERROR, "hub teacher with another tokenizer")
def teacher_shares_tokenizer(recipe: Recipe) -> Iterator[Finding]:
    """A logit store holds the teacher's probabilities by token id, and the student learns them id by id: both must
    use one tokenizer. A model of the hub was trained with its own, which a tokenizer trained on this corpus cannot
    be."""
    for _, teacher in _published(recipe):
        if isinstance(recipe.data.tokenizer, TrainedTokenizer):
            yield Finding(
                "data.tokenizer.kind",
                f"the tokenizer is trained here, but the teacher {teacher.path} has its own",
                f"tokenizer: {{kind: pretrained, path: {teacher.path}}}",
            )


@rule("PD156", Severity.WARNING, "unpinned revision")
def revision_pinned(recipe: Recipe) -> Iterator[Finding]:
    """A hub repository's main branch can change: without a revision the same recipe may train on other weights or
    other token ids next month, and a stored run cannot be repeated. Pin the commit that the run was made with."""
    sources: list[tuple[str, _FromHub]] = list(_datasets(recipe))
    if isinstance(recipe.data.tokenizer, PretrainedTokenizer):
        sources.append(("data.tokenizer", recipe.data.tokenizer))
    sources += _published(recipe)
    for field, source in sources:
        if source.revision is None and is_hub_id(source.path):
            yield Finding(f"{field}.path", f"{source.path} is not pinned", "add `revision:` with a commit hash")


def _datasets(recipe: Recipe) -> Iterator[tuple[str, HuggingFaceCorpus | HuggingFaceConversations]]:
    corpus = recipe.data.corpus
    if isinstance(corpus, HuggingFaceCorpus):
        yield "data.corpus", corpus
    if isinstance(corpus, MixtureCorpus):
        for number, source in enumerate(corpus.sources):
            if isinstance(source.corpus, HuggingFaceCorpus):
                yield f"data.corpus.sources.{number}.corpus", source.corpus
    if recipe.finetune and isinstance(recipe.finetune.instructions, HuggingFaceConversations):
        yield "finetune.instructions", recipe.finetune.instructions


@rule("PD157", Severity.WARNING, "tokenizer of another model than the teacher")
def tokenizer_of_teacher(recipe: Recipe) -> Iterator[Finding]:
    """Token ids of the teacher's distributions mean what its own tokenizer says. A tokenizer from another place may
    agree with it, and if it does not, the student silently learns a permuted distribution."""
    tokenizer = recipe.data.tokenizer
    if not isinstance(tokenizer, PretrainedTokenizer) or not is_hub_id(tokenizer.path):
        return
    for _, teacher in _published(recipe):
        if is_hub_id(teacher.path) and teacher.path != tokenizer.path:
            yield Finding("data.tokenizer.path", f"the tokenizer is {tokenizer.path}, the teacher {teacher.path}")


def _published(recipe: Recipe) -> Iterator[tuple[str, HuggingFaceTeacher]]:
    """The teachers from outside in Hugging Face's format, with their paths."""
    for pupil, teacher in taught(recipe):
        if isinstance(teacher.model, HuggingFaceTeacher):
            yield pupil.field("teacher.model"), teacher.model
