"""Tiny Hugging Face models for tests: a trained one exported, or random ones of any kind that transformers knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from pdforge.plan.jobs import HuggingFaceSource, ModelSource
from pdforge.titan.huggingface import huggingface_config, huggingface_weights
from pdforge.titan.inference import load


def exported(source: ModelSource, tokens: Path, folder: Path, *, shard_size: str = "1GB") -> Path:
    """A torchtitan model as a Hugging Face directory in float32, with the token store's tokenizer."""
    model = load(source, torch.device("cpu"), torch.float32)
    folder.mkdir(parents=True)
    save_torch_state_dict(huggingface_weights(model), folder, metadata={"format": "pt"}, max_shard_size=shard_size)
    config = huggingface_config(
        model.spec,
        sequence_length=source.sequence_length,
        rope_theta=source.architecture.rope_theta,
        dtype="float32",
        separator=0,
    )
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(tokens / "tokenizer.json", folder / "tokenizer.json")
    return folder


def source(folder: Path, **changes: Any) -> HuggingFaceSource:
    """The directory as a teacher of the tiny run."""
    plain: dict[str, Any] = {
        "path": str(folder),
        "revision": None,
        "dtype": "float32",
        "gguf_file": None,
        "code": False,
        "shard": 1,
        "architecture": None,
        "vocabulary": 512,
        "sequence_length": 64,
    }
    return HuggingFaceSource.model_validate({**plain, **changes})
