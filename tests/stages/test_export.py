"""`export` on a real, tiny student: what it leaves is a model that others load, and nothing where it is another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from pdforge.chat import ChatTemplate, Message
from pdforge.errors import StageFailed
from pdforge.layout import HUGGINGFACE, TOKENIZER_FILE, StageDirectory
from pdforge.plan.build import make_plans
from pdforge.plan.model import Plan
from pdforge.plan.profile import local_profile
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.load import load_recipes
from pdforge.recipe.models import TrainedTokenizer
from pdforge.stages import export
from pdforge.store.encoder import SEPARATOR, tokenizer_json
from tests.stages.conftest import TINY, TinyRun, pdforge, results

pytestmark = pytest.mark.slow


def exporting(root: Path) -> Plan:
    overrides = ["export.format=huggingface"]
    (plan,) = make_plans(load_recipes(str(TINY), variants=["pd"], overrides=overrides), local_profile(2), root)
    return plan


def test_a_run_ends_with_a_model_that_transformers_loads(tiny: TinyRun, tmp_path) -> None:
    root = tmp_path / "runs"
    for name in ("tokens", "teachers", "logits"):  # shared stages: they are there already
        shutil.copytree(tiny.root / name, root / name)
    before = tiny.stage("pd", "train")
    plan = exporting(root)
    # the student is the same; only what becomes of it is new, and so is the run's directory
    assert plan.training.identity == tiny.plans["pd"].training.identity
    shutil.copytree(before.path, root / plan.training.directory)
    pdforge("run", TINY, "--variant", "pd", "--set", "export.format=huggingface", "--root", root, "--processes", "2")
    stage = plan.stage("export")
    assert stage is not None
    directory = StageDirectory(root / stage.directory)
    found = results(directory)
    folder = directory.output / HUGGINGFACE
    assert found["largest_difference"] <= export.TOLERANCE
    assert found["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer("def main():", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**inputs, max_new_tokens=5).shape[1] > inputs["input_ids"].shape[1]
    card = (folder / "README.md").read_text()
    heldout = results(before)["heldout_loss"]
    assert f"{heldout:.4f} nats" in card
    assert "    recipe: tiny" in card
    for name, stage in (("data", "tokenize"), ("teacher", "pretrain-teacher")):
        assert any(line.startswith(f"| {name} |") and plan.stage(stage).identity in line for line in card.splitlines())
    assert f"| run | {plan.hash} |" in card
    # nothing half written is left, and a second run has nothing to do
    assert [path.name for path in directory.output.iterdir()] == [HUGGINGFACE]

    job = json.loads(directory.job_json.read_text())
    assert "student" in job


@pytest.mark.parametrize("marked", [False, True], ids=["the separator ends a turn", "a token of its own does"])
def test_how_a_fine_tuned_model_is_talked_to_goes_along(tmp_path: Path, marked: bool) -> None:
    """transformers writes a conversation as it was learnt, and stops where an answer ends."""
    tokenizer = Tokenizer.from_str(tokenizer_json(TrainedTokenizer(kind="trained", vocabulary=257), []).decode())
    bos, eos = ("<s>", "<end>") if marked else (SEPARATOR, SEPARATOR)
    tokenizer.add_special_tokens([bos, eos])
    tokenizer.save(str(tmp_path / TOKENIZER_FILE))
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    chat, out = ChatFormat(template=template, bos=bos, eos=eos), tmp_path / "out"
    out.mkdir()
    separator = tokenizer.token_to_id(SEPARATOR)
    export._write_tokenizer(out, tmp_path, separator, 64, chat)
    read = transformers.AutoTokenizer.from_pretrained(out)
    turns = [Message(role="user", content="one?"), Message(role="assistant", content="two.")]
    assert read.apply_chat_template(turns, tokenize=False) == ChatTemplate(chat).render(turns)
    assert (read.bos_token, read.eos_token) == (SEPARATOR, eos)
    stops = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert stops == ([tokenizer.token_to_id(eos), separator] if marked else separator)
    export._write_tokenizer(out, tmp_path, separator, 64, None)
    assert transformers.AutoTokenizer.from_pretrained(out).chat_template is None


def test_another_model_is_never_named(tiny: TinyRun, tmp_path, monkeypatch) -> None:
    plan = exporting(tiny.root)
    stage = plan.stage("export")
    assert stage is not None
    student = {"checkpoint": str(tiny.stage("pd", "train").checkpoints)}
    job = stage.job.model_copy(
        update={"student": stage.job.student.model_copy(update=student), "output": str(tmp_path / "output")}
    )
    write = export._write_weights

    def damaged(folder: Path, weights: dict[str, torch.Tensor]) -> None:
        write(folder, weights)
        held = load_file(folder / "model.safetensors")
        held["model.norm.weight"] *= 1.01
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(export, "_write_weights", damaged)
    with pytest.raises(StageFailed, match="logits differ by"):
        export.run(job, StageDirectory(tmp_path), 0, 1)
    assert not (tmp_path / "output" / HUGGINGFACE).exists()
    # the same job, started again, clears what is left and succeeds
    monkeypatch.undo()
    assert export.run(job, StageDirectory(tmp_path), 0, 1)["largest_difference"] <= export.TOLERANCE
    assert (tmp_path / "output" / HUGGINGFACE / "model.safetensors").exists()
