"""Cost of the distillation objective: time and memory of a training step, of the loss alone, and of reading a teacher.

    python benchmarks/objective.py [--repeats 5] [--device cpu|cuda] [--json]

One process, one thread on a CPU, variants interleaved; a time is the smallest of all repeats (CPU time on a CPU, events
on a GPU), memory the largest sum of live tensors above what lived before; that of a loss includes what it is given of
the teacher. Every figure is a ratio to a baseline of the same run. A step is forward, chunked head with loss, backward
and AdamW of a small decoder with a vocabulary of 32,768.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from pdforge.store.logits import LogitStore
from pdforge.store.spec import LogitSpec
from pdforge.store.writer import LogitWriter
from pdforge.titan import DistillationLoss, decoder
from pdforge.titan.packing import pack

VOCABULARY, TOP_K, LENGTH, BATCH, CHUNKS, ROWS = 32_768, 50, 256, 4, 8, 256
TEMPERATURE, ALPHA = 2.0, 0.9

Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each variant")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, baseline, bar, ok}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(options.device)
    rows = [*steps(device, options.repeats), *losses(device, options.repeats)]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        bar = "" if row["bar"] is None else f"bar {row['bar']:<5} {'met' if row['ok'] else 'MISSED'}"
        print(f"{row['name']:<58} {row['value']:6.3f} × {row['baseline']:<38} {bar}")


def figure(
    name: str, value: float, baseline: str, *, at_most: float | None = None, at_least: float | None = None
) -> Any:
    bar = at_most if at_most is not None else at_least
    ok = None if bar is None else value <= bar if at_most is not None else value >= bar
    return {"name": name, "value": value, "unit": "ratio", "baseline": baseline, "bar": bar, "ok": ok}


# the training step


def steps(device: torch.device, repeats: int) -> list[Any]:
    """A step with the objective against the same step with torchtitan's cross-entropy, and with a store's reader."""
    sample = batch(device)
    runs = {
        "cross-entropy": stepper(device, CrossEntropyLoss.Config(global_vocab_size=VOCABULARY), sample),
        "distillation": stepper(device, objective(), sample),
        "with ghost": stepper(device, objective(tail="ghost"), sample),
    }
    times = measure(runs, device, repeats)
    memory = {name: peak(run, device) for name, run in runs.items()}
    with tempfile.TemporaryDirectory() as folder:
        reading = reader(Path(folder), sample["teacher"])
        read = min(measure({"read": reading}, torch.device("cpu"), 3 * repeats)["read"])
    plain, distilled = min(times["cross-entropy"]), min(times["distillation"])
    return [
        figure("step with distillation, time", distilled / plain, "step with cross-entropy", at_most=1.05),
        figure("step, memory", memory["distillation"] / memory["cross-entropy"], "with cross-entropy", at_most=1.02),
        figure("step with distillation, tail ghost, time", min(times["with ghost"]) / plain, "step with cross-entropy"),
        figure(
            "tokens a second with the logit store's reader in line",
            distilled / (distilled + read),
            "the same step, teacher in memory",
            at_least=0.97,
        ),
    ]


def objective(**changes: Any) -> DistillationLoss.Config:
    made = recipe.Objective.model_validate(
        {"loss": {"kind": "kld"}, "temperature": TEMPERATURE, "alpha": ALPHA, **changes}
    )
    return DistillationLoss.Config(objective=made, vocabulary=VOCABULARY)


def batch(device: torch.device) -> dict[str, Any]:
    """Tokens, labels and a teacher for BATCH sequences."""
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1), device=device)
    parts = [truncate(torch.randn(LENGTH, VOCABULARY, device=device) * 2, 0.95, TOP_K) for _ in range(BATCH)]
    ids, logprobs = (torch.stack([getattr(part, name) for part in parts]) for name in ("ids", "logprobs"))
    return {
        "inputs": tokens[:, :-1],
        "positions": torch.arange(LENGTH, device=device).expand(BATCH, -1).contiguous(),
        "labels": tokens[:, 1:].contiguous(),
        "packed": pack(tokens[:, 1:], ids, logprobs),
        "teacher": parts,
    }


def stepper(device: torch.device, config: Any, sample: dict[str, Any]) -> Run:
    """One optimizer step of a model of its own."""
    model = build(device)
    loss = ChunkedLossWrapper.Config(num_chunks=CHUNKS, loss_fn=config).build()
    loss.set_lm_head(model.lm_head)
    labels = sample["labels"]
    if isinstance(loss.loss_fn, DistillationLoss):
        loss.loss_fn.to(device)
        loss.loss_fn.start_step(1, 1)
        labels = sample["packed"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=device.type == "cuda")
    masks = model.get_attention_masks(positions=sample["positions"])
    count = torch.tensor(float(BATCH * LENGTH), device=device)
    model._skip_lm_head = True

    def step() -> None:
        hidden = model(sample["inputs"], positions=sample["positions"], attention_masks=masks)
        value, _ = loss(hidden, labels, count)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


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


def reader(folder: Path, parts: list[Truncated]) -> Run:
    """Reading the batch's teacher from a logit store, packing included."""
    spec = LogitSpec(
        identity="0" * 12,
        teacher="t",
        tokens="0" * 12,
        tokens_content="c",
        tokenizer="t",
        sequence_length=LENGTH,
        vocabulary=VOCABULARY,
        top_p=0.95,
        top_k=TOP_K,
        sequences=BATCH,
        shard_sequences=BATCH,
        teacher_dtype="float32",
    )
    writer = LogitWriter(folder, spec)
    writer.write_shard(0, [block(part) for part in parts])
    writer.finish({})
    store = LogitStore.open(folder)
    labels = torch.zeros(BATCH, LENGTH, dtype=torch.long)

    def read() -> None:
        ids, logprobs, *_ = store.get_batch(range(BATCH), ordered=False)
        pack(labels, torch.from_numpy(ids), torch.from_numpy(logprobs))

    return read


def block(part: Truncated) -> LogitBlock:
    count, ids, logprobs, mass = (getattr(part, n).cpu().numpy() for n in ("count", "ids", "logprobs", "mass"))
    kept = np.arange(TOP_K) < count[:, None]
    return LogitBlock(count.astype(np.uint16), ids[kept].astype(np.int32), logprobs[kept], mass)


# the loss alone


def losses(device: torch.device, repeats: int) -> list[Any]:
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
            run(z, labels, given, alpha, made).total.backward()

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
    times = {name: min(values) for name, values in measure(whole, device, repeats).items()}
    memory = {name: peak(run, device) for name, run in whole.items()}
    return [
        figure(f"{kld}, time", times[kld] / times[two], two, at_most=0.6),
        figure(f"{kld}, memory", memory[kld] / memory[two], two, at_most=0.5),
        figure(f"{fast}, time", times[fast] / times[hand], hand, at_most=1.0),
        figure(f"{fast}, memory", memory[fast] / memory[hand], hand),
        *(figure(f"{name}, time", times[name] / times[ce], ce) for name in runs if name != ce),
        *(figure(f"{name}, memory", memory[name] / memory[ce], ce) for name in runs if name != ce),
        *liger(z, labels, logits, times[kld], repeats),
    ]


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


def liger(z: Tensor, labels: Tensor, logits: Tensor, ours: float, repeats: int) -> list[Any]:
    """Liger-Kernel's dense KL divergence, where there is a GPU and the package."""
    if z.device.type != "cuda":
        return []
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss, LigerKLDIVLoss  # noqa: PLC0415 - optional
    except ImportError:
        return []
    entropy, kl = LigerCrossEntropyLoss(reduction="sum"), LigerKLDIVLoss(reduction="sum")

    def both() -> None:
        copy = z.detach().clone().requires_grad_()
        target = softmax(logits / TEMPERATURE, 1)
        ((1 - ALPHA) * entropy(copy.clone(), labels) + ALPHA * kl(log_softmax(copy, 1), target)).backward()

    theirs = min(measure({"liger": both}, z.device, repeats)["liger"])
    return [figure("loss kld, time", ours / theirs, "Liger-Kernel, cross-entropy and KL divergence")]


# measuring


def measure(runs: dict[str, Run], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, interleaved, behind one that warms up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return times


def seconds(run: Run, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / 1e3


def peak(run: Run, device: torch.device) -> float:
    """Bytes of tensors that live at one time, above what lives before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return float(torch.cuda.max_memory_allocated() - before)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()) if event.name() == "[memory]"]
    return float(np.cumsum(changes).max())


if __name__ == "__main__":
    main()
