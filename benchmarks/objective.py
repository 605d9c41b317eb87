"""Cost of the distillation objective: time and memory of a training step, of the loss alone, and of reading a teacher.

    python benchmarks/objective.py [--pairs 15] [--device cpu|cuda] [--json]

Every figure is a ratio of two variants in one process: they run in turn, A B, B A, A B, …, each pair gives a ratio, and
the figure is the median (with the quartiles: other work on the machine shows there). One thread on a CPU, where time is
that of the processor, of all threads, and the ratio of wall times stands beside it; on a GPU time is the wall's, up to
the last kernel. Memory is the largest sum of live tensors above what lived before; that of a loss includes what it is
given of the teacher.

A step is everything that the trainer does with a batch: to the device, masks, teacher into labels, forward, chunked
head with loss, backward, AdamW; of a small decoder with a vocabulary of 32,768, so that the loss is a large part of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _ratios import Run, compare, figure, keep_memory, line, peak
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss

from pdforge.distill.divergence import divergence
from pdforge.distill.loss import Objective, mixed_loss
from pdforge.distill.teacher import Teacher, read_teacher
from pdforge.distill.temperature import NormKD, Static
from pdforge.distill.truncation import Truncated, truncate
from pdforge.recipe import models as recipe
from pdforge.store.codec import LogitBlock
from pdforge.store.spec import LogitSpec
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import TokenStore
from pdforge.store.writer import LogitWriter
from pdforge.titan import DistillationLoss, StoreLoader, decoder
from pdforge.titan.loader import TEACHER
from pdforge.titan.packing import pack

VOCABULARY, TOP_K, LENGTH, BATCH, CHUNKS, ROWS = 32_768, 50, 256, 4, 8, 256
SEQUENCES = 64
"""Of the stores."""
TEMPERATURE, ALPHA = 2.0, 0.9

Batch = tuple[dict[str, Tensor], Tensor]
"""As a loader yields it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pairs", type=int, default=15, help="runs of each variant beside its baseline; three times as many of steps"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok, …}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_memory()
    device = torch.device(options.device)
    rows = []
    # a step's ratio is nearer to its bar than other work on the machine makes it vary
    for row in chain(steps(device, 3 * options.pairs), losses(device, options.pairs)):
        rows.append(row)
        if not options.json:
            print(line(row), flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))


# the training step


def steps(device: torch.device, pairs: int) -> Iterator[dict[str, Any]]:
    """A step with the objective against the same step with torchtitan's cross-entropy; in memory and from stores."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, logits = stores(Path(folder), device)
        only_tokens = StoreLoader.Config(tokens=tokens)
        both = StoreLoader.Config(tokens=tokens, logits=logits, top_p=0.95, top_k=TOP_K)
        held = on(device, next(batches(both)))
        plain = stepper(device, CrossEntropyLoss.Config(global_vocab_size=VOCABULARY), repeat(held))
        distilled = stepper(device, objective(), repeat(held))
        yield figure(
            "step with distillation, time",
            compare(distilled, plain, device, pairs),
            "step with cross-entropy",
            at_most=1.05,
        )
        memory = peak(distilled, device) / peak(plain, device)
        yield figure("step with distillation, memory", memory, "step with cross-entropy", at_most=1.02)
        ghost = stepper(device, objective(tail="ghost"), repeat(held))
        yield figure(
            "step with distillation, tail ghost, time", compare(ghost, plain, device, pairs), "step with cross-entropy"
        )
        from_tokens = stepper(device, CrossEntropyLoss.Config(global_vocab_size=VOCABULARY), batches(only_tokens))
        from_stores = stepper(device, objective(), batches(both))
        yield figure(
            "tokens a second, distillation from stores",
            compare(from_tokens, from_stores, device, pairs),
            "cross-entropy from a token store",
            at_least=0.97,
        )
        yield figure(
            "tokens a second, distillation from stores",
            compare(distilled, from_stores, device, pairs),
            "distillation from memory",
        )


def objective(**changes: Any) -> DistillationLoss.Config:
    made = recipe.Objective.model_validate(
        {"loss": {"kind": "kld"}, "temperature": TEMPERATURE, "alpha": ALPHA, **changes}
    )
    return DistillationLoss.Config(objective=made, vocabulary=VOCABULARY)


def stepper(device: torch.device, config: Any, feed: Iterator[Batch]) -> Run:
    """One optimizer step of a model of its own on the next batch."""
    model = build(device)
    loss = ChunkedLossWrapper.Config(num_chunks=CHUNKS, loss_fn=config).build()
    loss.set_lm_head(model.lm_head)
    distils = isinstance(loss.loss_fn, DistillationLoss)
    if distils:
        loss.loss_fn.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=device.type == "cuda")
    count = torch.tensor(float(BATCH * LENGTH), device=device)
    model._skip_lm_head = True

    def step() -> None:
        batch, labels = on(device, next(feed))
        if distils:
            loss.loss_fn.start_step(1, 1)
            labels = pack(labels, *(batch[name] for name in TEACHER if name in batch))
        masks = model.get_attention_masks(positions=batch["positions"])
        hidden = model(batch["input"], positions=batch["positions"], attention_masks=masks)
        value, _ = loss(hidden, labels, count)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def on(device: torch.device, batch: Batch) -> Batch:
    parts, labels = batch
    return {name: part.to(device) for name, part in parts.items()}, labels.to(device)


def batches(config: StoreLoader.Config) -> Iterator[Batch]:
    """Through the trainer's own loader, prefetching included, again and again."""
    while True:
        yield from config.build(dp_world_size=1, dp_rank=0, seq_len=LENGTH, local_batch_size=BATCH)


def build(device: torch.device) -> nn.Module:
    shape = {"hidden": 256, "ffn": 704, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 64}
    spec = decoder(
        family="llama3",
        vocabulary=VOCABULARY,
        sequence_length=LENGTH,
        rope_theta=1e4,
        tied_embeddings=False,
        **shape,
    )
    with torch.device("meta"):
        model = spec.model.build()
    model.to_empty(device=device)
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    return model


def stores(folder: Path, device: torch.device) -> tuple[str, str]:
    """A token store, and a logit store with TOP_K entries at every position of it."""
    tokens, logits = folder / "tokens", folder / "logits"
    build_token_store(
        tokens,
        corpus=[recipe.StandardLibraryCorpus(kind="python-stdlib", bytes=400_000)],
        tokenizer=recipe.TrainedTokenizer(kind="trained", vocabulary=1024),
        sequence_length=LENGTH,
        train_sequences=SEQUENCES,
        validation_sequences=1,
        seed=0,
        identity="benchmark",
        progress=None,
    )
    spec = LogitSpec(
        identity="0" * 12,
        teacher="t",
        tokens="0" * 12,
        tokens_content=TokenStore.open(tokens).manifest.content,
        tokenizer="t",
        sequence_length=LENGTH,
        vocabulary=VOCABULARY,
        top_p=0.95,
        top_k=TOP_K,
        sequences=SEQUENCES,
        shard_sequences=SEQUENCES,
        teacher_dtype="float32",
    )
    writer = LogitWriter(logits, spec)
    drawn = (torch.randn(LENGTH, VOCABULARY, device=device) * 2 for _ in range(SEQUENCES))
    writer.write_shard(0, [block(truncate(each, 0.95, TOP_K)) for each in drawn])
    writer.finish({})
    return str(tokens), str(logits)


def block(part: Truncated) -> LogitBlock:
    count, ids, logprobs, mass = (getattr(part, n).cpu().numpy() for n in ("count", "ids", "logprobs", "mass"))
    kept = np.arange(TOP_K) < count[:, None]
    return LogitBlock(count.astype(np.uint16), ids[kept].astype(np.int32), logprobs[kept], mass)


# the loss alone


def losses(device: torch.device, pairs: int) -> Iterator[dict[str, Any]]:
    """The loss on given logits, forwards and backwards, against other ways to compute it."""
    z = torch.randn(ROWS, VOCABULARY, device=device, requires_grad=True)
    logits = torch.randn(ROWS, VOCABULARY, device=device) * 2
    labels = torch.randint(0, VOCABULARY, (ROWS,), device=device)
    cut = truncate(logits, 0.95, TOP_K)
    teacher = read_teacher(cut.ids, cut.logprobs, VOCABULARY, logits.std(1))
    alpha, tau = torch.tensor(ALPHA, device=device), torch.tensor(TEMPERATURE, device=device)
    compiled = torch.compile(mixed_loss)

    def ours(kind: str, tail: Any = "renormalise", temperature: Any = None, run: Any = mixed_loss) -> Run:
        made = Objective(divergence(kind, tail), tail, temperature or Static(tau))

        def both() -> None:
            given = Teacher(**{name: part.clone() for name, part in vars(teacher).items()})
            run(z, labels, [(given, 1.0)], alpha, made).total.backward()

        return both

    def dense() -> None:
        given = logits.clone()
        kd = kl_div(log_softmax(z, 1), softmax(given / TEMPERATURE, 1), reduction="sum")
        ((1 - ALPHA) * cross_entropy(z, labels, reduction="sum") + ALPHA * kd).backward()

    kld, ce, two = "loss kld", "cross-entropy", "dense, two softmaxes"
    hand, fast = "loss kld, hand-written backward", "loss kld, torch.compile"
    runs: dict[str, Run] = {
        ce: lambda: cross_entropy(z, labels, reduction="sum").backward(),
        two: dense,
        kld: ours("kld"),
        hand: lambda: HandWritten.apply(z, labels, teacher, alpha, tau).backward(),
        fast: ours("kld", run=compiled),
        "loss kld, tail label": ours("kld", "label"),
        "loss kld, tail ghost": ours("kld", "ghost"),
        "loss reverse_kld, tail ghost": ours("reverse_kld", "ghost"),
        "loss jsd": ours("jsd"),
        "loss mse": ours("mse"),
        "loss kld, temperature normkd": ours("kld", temperature=NormKD(1.0)),
    }

    def trained(run: Run) -> Run:
        def both() -> None:
            run()
            z.grad = None

        return both

    whole = {name: trained(run) for name, run in runs.items()}
    memory = {name: peak(run, device) for name, run in whole.items()}

    def row(name: str, baseline: str, at_most: float | None = None) -> dict[str, Any]:
        ratio = compare(whole[name], whole[baseline], device, pairs)
        return figure(f"{name}, time", ratio, baseline, at_most=at_most)

    yield row(kld, two, at_most=0.6)
    yield figure(f"{kld}, memory", memory[kld] / memory[two], two, at_most=0.5)
    yield row(fast, hand, at_most=1.0)
    yield figure(f"{fast}, memory", memory[fast] / memory[hand], hand)
    for name in runs:
        if name != ce:
            yield row(name, ce)
            yield figure(f"{name}, memory", memory[name] / memory[ce], ce)
    yield from liger(z, labels, logits, whole[kld], pairs)


class HandWritten(torch.autograd.Function):
    """KLD with a renormalised tail and a backward pass by hand: what the plain code has to beat."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by position
        ctx: Any, z: Tensor, labels: Tensor, teacher: Teacher, alpha: Tensor, tau: Tensor
    ) -> Tensor:
        log_w = (teacher.logprobs / tau).log_softmax(1)
        w = log_w.exp()
        columns = torch.cat([labels[:, None], teacher.ids], 1)
        lse = z.logsumexp(1, keepdim=True)
        picked = z.gather(1, columns) - lse
        pulls = torch.cat([(1 - alpha).expand_as(lse), alpha * w], 1)
        ctx.save_for_backward(z, columns, pulls, lse)
        return alpha * torch.where(teacher.kept, w * log_w, 0.0).sum() - (pulls * picked).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, columns, pulls, lse = ctx.saved_tensors
        result = torch.exp(z - lse).mul_(pulls.sum(1, keepdim=True)).scatter_add_(1, columns, -pulls)
        return result.mul_(gradient), None, None, None, None


def liger(z: Tensor, labels: Tensor, logits: Tensor, ours: Run, pairs: int) -> Iterator[dict[str, Any]]:
    """Liger-Kernel's dense KL divergence, where there is a GPU and the package."""
    if z.device.type != "cuda":
        return
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss, LigerKLDIVLoss  # noqa: PLC0415 - optional
    except ImportError:
        return
    entropy, kl = LigerCrossEntropyLoss(reduction="sum"), LigerKLDIVLoss(reduction="sum")

    def both() -> None:
        copy = z.detach().clone().requires_grad_()
        target = softmax(logits / TEMPERATURE, 1)
        ((1 - ALPHA) * entropy(copy.clone(), labels) + ALPHA * kl(log_softmax(copy, 1), target)).backward()

    ratio = compare(ours, both, z.device, pairs)
    yield figure("loss kld, time", ratio, "Liger-Kernel, cross-entropy and KL divergence")


if __name__ == "__main__":
    main()
