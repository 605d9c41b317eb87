"""`export`: the finished student as a Hugging Face directory, which is read back and compared before it counts."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdforge.errors import EnvironmentFault, StageFailed
from pdforge.layout import HUGGINGFACE, TOKENIZER_FILE, StageDirectory, read_json, write_atomically
from pdforge.plan.jobs import ExportJob
from pdforge.recipe.chat_format import ChatFormat
from pdforge.stages.entry import Results, Stopped
from pdforge.store.files import publish_folder
from pdforge.store.tokens import TokenStore
from pdforge.titan.huggingface import huggingface_config, huggingface_weights
from pdforge.titan.inference import load

TOLERANCE = 1e-4
"""Largest difference of a logit, as a part of the largest logit (of 1 where all are smaller)."""

_COMPARED = 512
"""Positions on which both forms are compared, at most."""


def run(job: ExportJob, directory: StageDirectory, rank: int, ranks: int) -> Results | Stopped:
    """Write the directory under another name, load it with transformers, compare the logits, and only then name it.

    Raises:
        StageFailed: the model that transformers reads is another one.
        EnvironmentFault: a package is missing.
    """
    del directory, ranks
    if rank != 0:
        return {}
    output = Path(job.output)
    partial = output / f".{HUGGINGFACE}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    store = TokenStore.open(job.tokens)
    # float32, so that the rounding to the export's dtype happens once
    dtype = getattr(torch, job.dtype)
    model = load(job.student, torch.device("cpu"), torch.float32)
    model.round_to(dtype)
    _write_weights(partial, {name: w.to(dtype) for name, w in huggingface_weights(model).items()})
    theta = job.student.architecture.rope_theta
    length, separator = job.student.sequence_length, store.manifest.separator
    config = huggingface_config(
        model.spec, sequence_length=length, rope_theta=theta, dtype=job.dtype, separator=separator
    )
    _write_json(partial / "config.json", config)
    _write_tokenizer(partial, Path(job.tokens), separator, length, job.chat)
    write_atomically(partial / "README.md", _card(job))
    tokens = torch.from_numpy(store.split("validation").get_batch([0])[0][:, :-1]).long()[:, :_COMPARED]
    positions = torch.arange(tokens.shape[1])[None]
    ours = model.logits(model.hidden(tokens, positions))
    del model  # before the other one is loaded: they are as large
    difference = _difference(ours, _read_back(partial, tokens))
    if not difference <= TOLERANCE:
        raise StageFailed(
            f"the exported model is another one: logits differ by {difference:.1e}, accepted is {TOLERANCE:.0e}",
            remedy=f"compare {partial} with the checkpoint {job.student.checkpoint}",
        )
    final = output / HUGGINGFACE
    publish_folder(partial, final)
    return {
        "format": "huggingface",
        "directory": str(final),
        "dtype": job.dtype,
        "bytes": sum(file.stat().st_size for file in final.iterdir()),
        "largest_difference": difference,
    }


def _write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    _library("huggingface_hub").save_torch_state_dict(weights, folder, metadata={"format": "pt"})


def _write_tokenizer(folder: Path, tokens: Path, separator: int, length: int, chat: ChatFormat | None) -> None:
    """The tokenizer, and where a text ends; of a fine-tuned model also how it is talked to, and where its turn ends."""
    shutil.copyfile(tokens / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    tokenizer = _library("tokenizers").Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    begins = ends = tokenizer.id_to_token(separator)
    stops: int | list[int] = separator
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    if chat is not None:
        # texts begin with the separator, as in pre-training; a template may name another token
        named = "" if chat.bos == begins else f"{{%- set bos_token = {json.dumps(chat.bos)} -%}}"
        settings["chat_template"] = named + chat.template
        turn_ends = tokenizer.token_to_id(chat.eos)
        if turn_ends not in (None, separator):
            ends, stops = chat.eos, [turn_ends, separator]
    _write_json(folder / "tokenizer_config.json", {**settings, "bos_token": begins, "eos_token": ends})
    _write_json(folder / "generation_config.json", {"bos_token_id": separator, "eos_token_id": stops})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _read_back(folder: Path, tokens: Tensor) -> Tensor:
    """Logits of the exported model, computed in float32."""
    transformers = _library("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: Tensor = model(tokens).logits
    return logits


def _difference(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"the `{name}` package is missing", remedy="pip install 'pdforge[hf]'") from error


def _card(job: ExportJob) -> str:
    """The model card: what the model is, and how to get it again."""
    done = read_json(StageDirectory(Path(job.training)).done) or {}
    results, step = done.get("results", {}), job.student.step
    steps = results.get("steps") or step
    loss = results.get("heldout_loss") if step == steps else None
    rows = {
        "held-out loss": f"{loss:.4f} nats a token" if loss else "unknown",
        "parameters": f"{results.get('parameters', 0):,}",
        "training tokens": f"{results.get('tokens', 0) * step // steps:,}",
        "training stage": done.get("identity", "unknown"),
        **job.origin,
        "weights": job.dtype,
    }
    cells = {name: " ".join(value.split()).replace("|", "\\|") for name, value in rows.items()}
    table = "\n".join(f"| {name} | {value} |" for name, value in cells.items())
    recipe = "".join(
        f"    {line}\n" for line in job.recipe.splitlines()
    )  # indented: no fence that the text could close
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# {job.name}\n\n"
        "Pre-trained with pdforge by pre-training distillation (arXiv 2410.16215).\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        "Logits of this directory, read by transformers, equal those of the checkpoint.\n\n"
        f"## Recipe\n\n{recipe}"
    )
