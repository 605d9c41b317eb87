"""Sound recipes of every form that the language has, drawn at random."""

from __future__ import annotations

import random
from typing import Any

Draw = random.Random
Values = dict[str, Any]

SHAPES = [(64, 4), (96, 6), (128, 8), (2048, 16)]


def recipe(seed: int) -> Values:
    """Recipe number `seed`, as a file would hold it. Its teacher's checkpoint, where it has one, is `checkpoint`."""
    draw = Draw(seed)
    hub = draw.random() < 0.4
    values = {
        "recipe": f"made-{seed}",
        "data": _data(draw, hub=hub),
        "student": {"architecture": _architecture(draw)},
        "training": _training(draw),
        "objective": _objective(draw),
        "teacher": _teacher(draw, hub=hub),
    }
    _suit(values["objective"], values["teacher"])
    if values["teacher"].get("logits", {}).get("mode") == "online":
        _follow(draw, values)
    values["description"] = "".join(draw.choices("aé τ\"'#:{}%\\\n\t-", k=draw.randrange(12)))
    if draw.random() < 0.3:
        values["finetune"] = _finetune(draw, hub=hub)
    for name, make in (("export", _export), ("evaluate", _evaluate), ("expect", _expect)):
        if draw.random() < 0.3:
            values[name] = make(draw)
    if "evaluate" in values:
        values.setdefault("export", {})
    return values


def _some(draw: Draw, fields: Values) -> Values:
    """About half of the fields, the others being left to their defaults."""
    return {name: value for name, value in fields.items() if draw.random() < 0.5}


def _fraction(draw: Draw) -> Any:
    value = draw.choice([0.01, 0.1, 0.25, 1 / 3])
    return draw.choice([value, f"{round(100 * value)}%"])


def _data(draw: Draw, *, hub: bool) -> Values:
    pretrained = {"path": "some/model", "vocabulary": 2048, **_some(draw, {"revision": "0f1c", "separator": "<s>"})}
    return {
        "corpus": _corpus(draw),
        "tokenizer": pretrained if hub else {"kind": "trained", "vocabulary": draw.choice([512, 2048])},
        "sequence_length": draw.choice([128, 256]),
        "train_tokens": draw.choice(["100M", 123_456_789]),
        "validation_tokens": "64k",
        **_some(draw, {"seed": draw.randrange(5)}),
    }


def _corpus(draw: Draw, *, mixed: bool = True) -> Values:
    revision = _some(draw, {"revision": "abc", "name": "en", "split": "validation", "text": "body"})
    forms: list[Values] = [
        {"kind": "python-stdlib", **_some(draw, {"bytes": draw.choice(["2MiB", "12M", 4096])})},
        {"kind": "text", "path": "/corpus/*.txt"},
        {"kind": "jsonl", "path": "s3://corpus/a.jsonl", **_some(draw, {"text": "body"})},
        {"kind": "parquet", "path": "/corpus/*.parquet", **_some(draw, {"text": "body"})},
        {"kind": "huggingface", "path": "some/text", **revision},
    ]
    if mixed and draw.random() < 0.3:
        sources = [{"corpus": _corpus(draw, mixed=False), **_some(draw, {"weight": 0.7})} for _ in range(3)]
        return {"kind": "mixture", "sources": sources}
    return draw.choice(forms)


def _architecture(draw: Draw) -> Values:
    hidden, heads = draw.choice(SHAPES)
    optional = {"kv_heads": 2, "rope_theta": 1e4, "tied_embeddings": True, "family": "qwen3"}
    return {"hidden": hidden, "ffn": 4 * hidden, "layers": draw.choice([2, 4]), "heads": heads, **_some(draw, optional)}


def _training(draw: Draw) -> Values:
    length = draw.choice([{}, {"tokens": "1.5M"}, {"tokens": 2_000_000}, {"steps": 50}])
    schedules: list[Values] = [
        {"schedule": "wsd", **_some(draw, {"warmup": _fraction(draw), "decay": _fraction(draw), "floor": 0.0})},
        {"schedule": "cosine", **_some(draw, {"warmup": _fraction(draw)})},
        {"schedule": "constant"},
    ]
    optional = {
        "optimizer": _some(draw, {"learning_rate": 3e-4, "betas": [0.8, 0.99], "eps": 1e-7, "clip": 2}),
        "learning_rate_schedule": draw.choice(schedules),
        "precision": "float32",
        "checkpoint": _some(draw, {"every": 7, "keep": 2, "interval": draw.choice(["30m", "1h30m", 90])}),
        "activation_checkpointing": "full",
        "loss_chunks": 4,
        "validate_every": 5,
        "seed": 3,
    }
    return {"batch": {"global": 16, **_some(draw, {"micro": 4})}, **length, **_some(draw, optional)}


def _teacher(draw: Draw, *, hub: bool) -> Values:
    pretrain = {"kind": "pretrain", "architecture": _architecture(draw), "training": _training(draw)}
    model: Values = pretrain
    if hub:
        model = {"kind": "huggingface", "path": "some/model", **_some(draw, {"revision": "0f1c", "dtype": "float32"})}
    elif draw.random() < 0.2:
        above = {"model": pretrain, "truncation": {"top_p": 0.9}}
        model = {**pretrain, "kind": "distilled", "objective": {"alpha": 0.5}, "teacher": above}
    elif draw.random() < 0.3:
        step = _some(draw, {"step": 1})
        model = {"kind": "torchtitan", "path": "checkpoint", **step, "architecture": _architecture(draw)}
    truncations: list[Values] = [
        _some(draw, {"top_p": 0.9, "top_k": draw.choice([20, 50])}),
        {"kind": "sample", **_some(draw, {"draws": 20, "seed": 7})},
    ]
    stored = _some(draw, {"shard_sequences": 64, "codec": "context-40", "columns": ["entropy", "logsumexp"]})
    logits: list[Values] = [{"mode": "live"}, {"mode": "offline"}, stored]
    if model is pretrain:
        logits.append({"mode": "online", "from_step": 1, **stored})
    return {"model": model, **_some(draw, {"truncation": draw.choice(truncations), "logits": draw.choice(logits)})}


def _objective(draw: Draw) -> Values:
    losses: list[Values] = [{"kind": kind} for kind in ("nll", "kld", "reverse_kld", "jsd", "mse")]
    losses += [{"kind": "jsd", "beta": _fraction(draw)}]
    temperatures: list[Any] = [
        0.5,
        2,
        {"kind": "normkd", **_some(draw, {"norm": 2})},
        {"kind": "wttm", **_some(draw, {"gamma": 0.2})},
        {"kind": "adakd_sd", **_some(draw, {"minimum": 1})},
        {"kind": "adakd_h", **_some(draw, {"maximum": 3.5})},
        {"kind": "scheduled", "high": 4, "along": {"schedule": "linear_dec"}, **_some(draw, {"low": 0.5})},
    ]
    phases = _some(draw, {"warmup": _fraction(draw), "decay": _fraction(draw), "peak": 0.8})
    alphas: list[Any] = [0, "90%", 0.5, {"schedule": "constant", "value": 1}, {"schedule": "period", "cycles": 3}]
    alphas += [{"schedule": kind} for kind in ("linear_inc", "linear_dec", "cosine")]
    alphas += [{"schedule": kind, **phases} for kind in ("wsd", "wsd_beta")]
    return _some(
        draw,
        {
            "loss": draw.choice(losses),
            "temperature": draw.choice(temperatures),
            "alpha": draw.choice(alphas),
            "token_filter": {"skip_lowest_entropy": _fraction(draw) if draw.random() < 0.9 else 0.15},
        },
    )


def _suit(objective: Values, teacher: Values) -> None:
    """A loss that has a meaning on the teacher's targets; of a sample, its one temperature and codec."""
    kind = objective.get("loss", {}).get("kind")
    if teacher.get("truncation", {}).get("kind") == "sample":
        objective.pop("temperature", None)
        teacher.get("logits", {}).pop("codec", None)
        if kind in ("reverse_kld", "jsd"):
            del objective["loss"]
    elif kind == "reverse_kld":
        objective["tail"] = "ghost"


def _follow(draw: Draw, values: Values) -> None:
    """The student is trained as long as its teacher, whose distributions it reads as they were; maybe α follows too."""
    theirs = values["teacher"]["model"]["training"]
    for name in ("tokens", "steps"):
        values["training"].pop(name, None)
        values["training"] |= {name: theirs[name]} if name in theirs else {}
    if draw.random() < 0.5:
        convergence = {"schedule": "teacher_convergence", **_some(draw, {"peak": 0.5, "half_at": 0.3})}
        values["objective"]["alpha"] = convergence


def _finetune(draw: Draw, *, hub: bool) -> Values:
    training = {"batch": {"global": 8}, **_some(draw, {"seed": 1, "precision": "float32"})}
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    return {
        "instructions": {"path": "i.jsonl"},
        "template": template,
        "instruction_tokens": "10M",
        "training": training,
        **(_finetune_teacher(draw, hub=hub) if draw.random() < 0.5 else {}),
    }


def _finetune_teacher(draw: Draw, *, hub: bool) -> Values:
    objective, teacher = _objective(draw), _teacher(draw, hub=hub)
    teacher.pop("logits", None)
    if draw.random() < 0.5:
        _suit(objective, teacher)
        return {"objective": objective, "teacher": teacher}
    # that of the recipe, whatever it is: what suits every one
    return {"objective": _some(draw, {"alpha": 0.3, "loss": {"kind": "nll"}})}


def _export(draw: Draw) -> Values:
    return _some(draw, {"format": "huggingface", "dtype": "float16"})


def _evaluate(draw: Draw) -> Values:
    options = _some(draw, {"limit": "1k", "suite": "paper", "batch": 4, "at": [1]})
    own = [{"task": "arc_easy"}, {"task": "gsm8k", "shots": 1, "name": "gsm8k, shown one", "metric": "exact_match"}]
    return {"tasks": own, **options}


def _expect(draw: Draw) -> list[Values]:
    optional = _some(draw, {"tolerance": 0.01, "step": 500})
    return [{"source": "an earlier run", "values": {"heldout_loss": 2.5, "mmlu (5 shots)": 41}, **optional}]
