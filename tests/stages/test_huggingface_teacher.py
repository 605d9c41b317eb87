"""Capture from Hugging Face models: the same distributions as from the torchtitan model that they were made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pdforge.errors import EnvironmentFault, StageFailed, StoreMismatch
from pdforge.layout import StageDirectory
from pdforge.plan.jobs import CaptureJob, ModelSource
from pdforge.stages import capture
from pdforge.stages.entry import read_job
from pdforge.store.logits import LogitStore
from pdforge.store.tokens import TokenStore
from pdforge.titan.teacher import load_teacher
from tests.stages.conftest import TinyRun, results, torchrun
from tests.stages.test_capture import captured, prepared
from tests.store import made
from tests.teachers.models import exported, source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def teacher(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's teacher as a Hugging Face directory of several shards."""
    job = read_job(tiny.stage("pd", "capture"))
    assert isinstance(job, CaptureJob)
    assert isinstance(job.teacher, ModelSource)
    folder = tmp_path_factory.mktemp("teacher") / "hf"
    return exported(job.teacher, Path(job.tokens), folder, shard_size="64KB")


def changed(teacher: Path, folder: Path, **files: Any) -> Path:
    """A copy of the model with some files changed: JSON objects by the part of their names before `.json`."""
    folder.mkdir()
    for file in teacher.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name, changes in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def capturing(tiny: TinyRun, path: Path, folder: Path, **changes: Any) -> StageDirectory:
    """The tiny run's capture, lossless, from a Hugging Face directory."""
    of_source = {name: changes.pop(name) for name in ("shard", "vocabulary", "dtype", "code") if name in changes}
    return prepared(tiny, path, teacher=source(folder, **of_source).model_dump(), codec="lossless", **changes)


def test_the_distributions_of_the_model_it_was_made_from(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    assert len(list(teacher.glob("*.safetensors"))) > 1
    columns = {"columns": ("entropy", "label_logprob")}
    native = captured(prepared(tiny, tmp_path / "native", codec="lossless", **columns))
    stage = capturing(tiny, tmp_path / "theirs", teacher, **columns)
    theirs = captured(stage, ranks=2)
    ids, logprobs, mass, *figures = theirs.get_batch(range(len(theirs)), columns=columns["columns"])
    ours = native.get_batch(range(len(native)), columns=columns["columns"])
    # where two tokens are as likely but for the last digit, either may be kept or come first
    same = (ids == ours[0]).mean()
    assert same > 0.999
    np.testing.assert_allclose(logprobs[ids == ours[0]], ours[1][ids == ours[0]], atol=1e-5)
    np.testing.assert_allclose(mass, ours[2], atol=1e-3)
    for column, other in zip(figures, ours[3:], strict=True):
        np.testing.assert_allclose(column, other, rtol=2e-3)  # columns are stored in 16 bits
    heldout = results(tiny.stage("pd", "pretrain-teacher"))["heldout_loss"]
    for store in (native, theirs):
        assert store.manifest.capture["teacher_heldout_loss"] == pytest.approx(heldout, abs=1e-5)


def test_documents_do_not_see_each_other(tiny: TinyRun, teacher: Path) -> None:
    tokens = TokenStore.open(tiny.stage("pd", "tokenize").output)
    model = load_teacher(source(teacher), tokens, torch.device("cpu"), torch.float32)
    first, length = 20, 64
    one = torch.randint(0, 512, (2, length), generator=torch.Generator().manual_seed(1))
    other = one.clone()
    other[:, :first] = 1
    positions = torch.cat([torch.arange(first), torch.arange(length - first)]).expand(2, -1)
    a, b = (model.logits(model.hidden(each, positions)) for each in (one, other))
    assert not torch.equal(a[:, :first], b[:, :first])
    assert torch.equal(a[:, first:], b[:, first:])
    # as the document alone, from its first position on
    alone = model.logits(model.hidden(one[:, first:], positions[:, first:]))
    torch.testing.assert_close(a[:, first:], alone, atol=1e-5, rtol=0)


def test_sharded_over_two_processes_it_is_the_same_store(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    """Ten shards for two ranks that run in step, the last one shorter; and 3 shards, of which one rank has one more."""
    for name, changes in (("ten", {}), ("three", {"sequences": 80, "micro": 7})):
        alone = captured(capturing(tiny, tmp_path / name, teacher, **changes))
        stage = capturing(tiny, tmp_path / f"{name}-sharded", teacher, shard=2, **changes)
        torchrun(2, "pdforge.stages", stage.path, cwd=tmp_path)
        assert stage.done.exists()
        together = LogitStore.open(stage.output)
        for ours, theirs in zip(alone.get_batch(range(len(alone))), together.get_batch(range(len(alone))), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert made.contents(stage.output) == made.contents(tmp_path / name / "output")


def test_padding_of_the_teacher_cannot_occur(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    """A teacher with more rows than the tokenizer, and a student with fewer than that: nothing is kept beyond it."""
    padded = changed(teacher, tmp_path / "padded", config={"vocab_size": 640})
    index = json.loads((padded / "model.safetensors.index.json").read_text())["weight_map"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        file = padded / index[name]
        held = load_file(file)
        rows = torch.cat(
            [held[name], 5 + torch.randn(128, held[name].shape[1], generator=torch.Generator().manual_seed(0))]
        )
        save_file({**held, name: rows}, file, metadata={"format": "pt"})
    plain = captured(capturing(tiny, tmp_path / "plain", teacher, sequences=32))
    store = captured(capturing(tiny, tmp_path / "store", padded, sequences=32, vocabulary=600))
    for ours, theirs in zip(store.get_batch(range(32)), plain.get_batch(range(32)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_other_families(tiny: TinyRun, teacher: Path, tmp_path: Path, family: str, dtype: str) -> None:
    """Random models as transformers itself computes them, one document at a time; gemma2 caps its logits."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(
        family, vocab_size=512, num_key_value_heads=2, head_dim=8, max_position_embeddings=64, **shape
    )
    torch.manual_seed(0)
    reference = transformers.AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        reference.get_output_embeddings().weight.mul_(20)
    folder = tmp_path / family
    reference.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((teacher / "tokenizer.json").read_bytes())
    tokens = TokenStore.open(tiny.stage("pd", "tokenize").output)
    model = load_teacher(source(folder, dtype=dtype), tokens, torch.device("cpu"), getattr(torch, dtype))
    ids = torch.randint(0, 512, (1, 48), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(20), torch.arange(28)])[None]
    ours = model.logits(model.hidden(ids, positions)).float()
    with torch.inference_mode():
        theirs = torch.cat([reference(part).logits for part in ids.split([20, 28], dim=1)], dim=1).float()
    torch.testing.assert_close(ours, theirs, atol=1e-5 if dtype == "float32" else 0.1, rtol=0)


def refused(tiny: TinyRun, path: Path, folder: Path, error: type[Exception], **changes: Any) -> str:
    """What a capture says that must not begin; nothing is written."""
    stage = capturing(tiny, path, folder, **changes)
    job = read_job(stage)
    assert isinstance(job, CaptureJob)
    with pytest.raises(error) as caught:
        capture.run(job, stage, 0, 1)
    assert not list(stage.output.glob("*"))
    assert caught.value.remedy  # type: ignore[attr-defined]
    return str(caught.value)


def test_a_model_that_is_not_whole(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    lacking = changed(teacher, tmp_path / "shard")
    shard = sorted(lacking.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"there is no {shard}" in refused(tiny, tmp_path / "a", lacking, EnvironmentFault)

    cut = changed(teacher, tmp_path / "cut")
    file = sorted(cut.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:1000])
    assert "transformers cannot load" in refused(tiny, tmp_path / "b", cut, EnvironmentFault)

    weight = "model.layers.1.mlp.up_proj.weight"
    nan, less = changed(teacher, tmp_path / "nan"), changed(teacher, tmp_path / "less")
    held_in = json.loads((teacher / "model.safetensors.index.json").read_text())["weight_map"][weight]
    held = load_file(nan / held_in)
    held[weight][3, 5] = torch.nan
    save_file(held, nan / held_in, metadata={"format": "pt"})
    assert f"the weight {weight} is not finite" in refused(tiny, tmp_path / "c", nan, EnvironmentFault)
    del held[weight]
    save_file(held, less / held_in, metadata={"format": "pt"})
    assert f"lack {weight} (1 are missing)" in refused(tiny, tmp_path / "d", less, EnvironmentFault)


def test_another_tokenizer(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    """Two ids exchanged; one token more; a merge less; text cut otherwise; none at all."""
    own = json.loads((teacher / "tokenizer.json").read_text())
    model = own["model"]
    by_id = {number: token for token, number in model["vocab"].items()}
    exchanged = {**model["vocab"], by_id[300]: 301, by_id[301]: 300}
    larger = {**own["added_tokens"][0], "id": 512, "content": "<|more|>"}
    cases = {
        "2 of 512 tokens have other ids": {"model": {**model, "vocab": exchanged}},
        "it has 513 tokens, the student's 512 (only one of them has '<|more|>')": {
            "added_tokens": [*own["added_tokens"], larger]
        },
        "their merges differ from number 3 on": {
            "model": {**model, "merges": model["merges"][:3] + model["merges"][4:]}
        },
        "have the same tokens, and cut text differently": {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"String": "e"}, "behavior": "Isolated", "invert": False},
                    own["pre_tokenizer"],
                ],
            }
        },
    }
    for number, (words, change) in enumerate(cases.items()):
        folder = changed(teacher, tmp_path / str(number), tokenizer=change)
        assert words in refused(tiny, tmp_path / f"stage-{number}", folder, StoreMismatch)
    none = changed(teacher, tmp_path / "none")
    (none / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(tiny, tmp_path / "stage-none", none, EnvironmentFault)


def test_shapes_that_cannot_serve(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    short = changed(teacher, tmp_path / "short", config={"max_position_embeddings": 32})
    assert "was made for 32 positions" in refused(tiny, tmp_path / "a", short, EnvironmentFault)
    window = changed(
        teacher,
        tmp_path / "window",
        config={"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16},
    )
    assert "attends to the last 16 tokens only" in refused(tiny, tmp_path / "b", window, EnvironmentFault)
    unknown = changed(teacher, tmp_path / "unknown", config={"model_type": "nobodys", "architectures": ["X"]})
    assert "transformers cannot load" in refused(tiny, tmp_path / "c", unknown, EnvironmentFault)


def test_a_teacher_of_nothing_stops_the_run(tiny: TinyRun, teacher: Path, tmp_path: Path) -> None:
    """The same shape with weights that were never trained."""
    blank = changed(teacher, tmp_path / "blank")
    for file in blank.glob("*.safetensors"):
        held = load_file(file)
        save_file(
            {name: torch.ones_like(one) if one.dim() == 1 else torch.zeros_like(one) for name, one in held.items()},
            file,
            metadata={"format": "pt"},
        )
    words = refused(tiny, tmp_path / "stage", blank, StageFailed)
    assert "its perplexity on held-out text is 512, of 512 tokens" in words
