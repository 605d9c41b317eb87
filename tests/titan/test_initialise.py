"""Weights to start from are looked at before they are loaded, without a training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pdforge.errors import EnvironmentFault
from pdforge.recipe.models import Architecture
from pdforge.titan.checkpoints import require_weights
from pdforge.titan.huggingface import huggingface_weights
from pdforge.titan.inference import FrozenModel
from tests.titan.test_huggingface import SHAPES, saved

FORMS = ["huggingface", "torchtitan"]


@pytest.fixture(params=["llama3", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> FrozenModel:
    return saved(tmp_path, Architecture(family=request.param, **SHAPES[request.param]))


def _stored(model: FrozenModel, folder: Path, form: str) -> tuple[Path, Any]:
    """The model in a form, and the adapter that reads it."""
    if form == "torchtitan":
        return folder / "step-1", None
    out = folder / "hf"
    out.mkdir()
    weights = huggingface_weights(model)
    half = len(weights) // 2
    for number, names in enumerate((list(weights)[:half], list(weights)[half:])):
        save_file({name: weights[name] for name in names}, out / f"model-{number}.safetensors")
    return out, model.spec.state_dict_adapter(model.spec.model, None)


require = partial(require_weights, place="student.initialise", of="student")


@pytest.mark.parametrize("form", FORMS)
def test_a_part_of_the_model_is_enough(model: FrozenModel, tmp_path: Path, form: str) -> None:
    folder, adapter = _stored(model, tmp_path, form)
    require(folder, model.weights(), adapter)
    part = {name: weight for name, weight in model.weights().items() if not name.startswith("layers.0.")}
    assert len(part) < len(model.weights())
    require(folder, part, adapter)


@pytest.mark.parametrize("form", FORMS)
def test_another_shape_is_named(model: FrozenModel, tmp_path: Path, form: str) -> None:
    folder, adapter = _stored(model, tmp_path, form)
    weights = {**model.weights(), "norm.weight": torch.empty(65)}
    with pytest.raises(EnvironmentFault, match=r"norm.weight of student.architecture has the shape \[65\]; .* \[64\]"):
        require(folder, weights, adapter)


def test_a_missing_shard_is_a_missing_weight(model: FrozenModel, tmp_path: Path) -> None:
    folder, adapter = _stored(model, tmp_path, "huggingface")
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(EnvironmentFault, match=r"the weight model\.layers\.1\..*hf does not have it"):
        require(folder, model.weights(), adapter)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_not_a_traceback(model: FrozenModel, tmp_path: Path, form: str) -> None:
    folder, adapter = _stored(model, tmp_path, form)
    file = folder / (".metadata" if form == "torchtitan" else "model-0.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(EnvironmentFault, match="cannot read the weights in"):
        require(folder, model.weights(), adapter)
