"""What becomes of the student: samples of a fine-tuning, its chat format, what it starts from and what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.compile.stage import write_stage
from pdforge.errors import EnvironmentFault, UsageError
from pdforge.plan.chat import chat_format
from pdforge.plan.extension import held_step
from pdforge.plan.jobs import EvaluateJob, ExportJob, TokenizeJob, TrainJob
from pdforge.plan.model import Plan
from pdforge.plan.storage import checkpoint_figures
from pdforge.recipe.models import Finetune, PretrainedTokenizer, TrainedTokenizer
from tests.plan.conftest import FINETUNE, TEMPLATE, MakePlans


def job_of(plan: Plan) -> TrainJob:
    stage = plan.stage("finetune")
    assert stage is not None
    assert isinstance(stage.job, TrainJob)
    return stage.job


def test_stages_and_what_they_need(plans: MakePlans) -> None:
    [plan] = plans(FINETUNE, "export={}")
    kinds = [stage.kind for stage in plan.stages]
    assert kinds[-4:] == ["train", "tokenize-conversations", "finetune", "export"]
    tokenize, train, conversations, finetune, export = (
        plan.stage(kind) for kind in ("tokenize", "train", "tokenize-conversations", "finetune", "export")
    )
    assert all((tokenize, train, conversations, finetune, export))
    assert conversations.needs == [tokenize.key]
    assert conversations.shared
    assert set(finetune.needs) == {tokenize.key, conversations.key, train.key}
    assert export.needs == [tokenize.key, finetune.key]
    job, trained = job_of(plan), train.job
    assert isinstance(trained, TrainJob)
    assert job.initial is not None
    assert job.initial.path.endswith(f"{train.directory}/output/checkpoint/step-{trained.steps}")
    assert isinstance(export.job, ExportJob)
    assert export.job.student.checkpoint.endswith(f"{finetune.directory}/output/checkpoint")
    assert export.job.student.step == job.steps
    assert isinstance(conversations.job, TokenizeJob)
    assert str(conversations.job.tokenizer.path).endswith(f"{tokenize.directory}/output/tokenizer.json")


def test_a_card_says_what_the_student_was_made_from(plans: MakePlans) -> None:
    [plan], [alone] = (
        plans(FINETUNE, "export={}", "finetune.objective={alpha: 0.5}"),
        plans("export={}", variants=("lm",)),
    )
    export, plain, [capture], [teacher] = plan.stage("export"), alone.stage("export"), plan.captures, plan.teachers
    tokenize, conversations = plan.stage("tokenize"), plan.stage("tokenize-conversations")
    assert all((export, plain, tokenize, conversations))
    assert isinstance(export.job, ExportJob)
    assert isinstance(plain.job, ExportJob)
    origin = dict(export.job.origin)
    beside = origin.pop("teacher of fine-tuning")
    assert origin == {
        "run": plan.hash,
        "data": f"token store {tokenize.identity}",
        "conversations": f"token store {conversations.identity}",
        "teacher": f"pretrain, identity {teacher.identity}; distributions {capture.identity}",
    }
    assert beside.startswith(f"pretrain, identity {teacher.identity}; distributions ")
    assert set(plain.job.origin) == {"run", "data"}


def test_samples_follow_the_token_shares(plans: MakePlans) -> None:
    job = job_of(plans(FINETUNE)[0])
    assert job.steps == 4000 // (4 * 64)
    mix = job.conversations
    assert mix is not None
    assert (mix.sequences, mix.text_sequences) == (45, 15)
    assert mix.text_from == 23 * 8, "behind what training has read"


def test_epochs_need_fewer_conversations(plans: MakePlans) -> None:
    [plan] = plans(FINETUNE, "finetune.training.epochs=4")
    stage = plan.stage("tokenize-conversations")
    assert stage is not None
    assert isinstance(stage.job, TokenizeJob)
    assert stage.job.train_sequences == 12
    assert job_of(plan).steps == 15


def test_text_that_training_has_read_is_not_read_again(plans: MakePlans) -> None:
    with pytest.raises(UsageError, match=r"\d+ sequences of text .* and there are 128") as caught:
        plans(FINETUNE, "finetune.text_tokens=32k", "finetune.instruction_tokens=0.128k")
    assert "raise data.train_tokens to 43," in caught.value.remedy


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("finetune.template='x{TEMPLATE}'", True),
        ("finetune.instructions.bytes=200k", True),
        ("finetune.instruction_tokens=2k", True),
        ("finetune.text_tokens=2k", True),
        ("finetune.training.epochs=2", True),
        ("finetune.training.optimizer.learning_rate=0.001", True),
        ("finetune.training.seed=3", True),
        ("objective.temperature=3", True),
        ("finetune.training.batch.micro=2", False),
        ("finetune.training.checkpoint.every=3", False),
        ("finetune.training.log_every=1", False),
    ],
)
def test_identity(plans: MakePlans, override: str, changed: bool) -> None:
    [before], [after] = plans(FINETUNE), plans(FINETUNE, override.replace("{TEMPLATE}", TEMPLATE))
    assert (job_of(before).identity != job_of(after).identity) == changed


def test_content_of_the_conversations_counts(plans: MakePlans, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    override = FINETUNE.replace("{kind: python-stdlib, bytes: 100k}", f"{{path: {file}}}")
    file.write_text("1")
    [before] = plans(override)
    file.write_text("2")
    [after] = plans(override)
    assert before.training.identity == after.training.identity
    assert job_of(before).identity != job_of(after).identity
    assert before.hash != after.hash


def finetune(**more: object) -> Finetune:
    return Finetune.model_validate(
        {"instructions": {"path": "c"}, "instruction_tokens": 9, "training": {"batch": {"global": 1}}, **more}
    )


def test_the_template_is_the_recipes_then_the_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    config = {"chat_template": TEMPLATE, "bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        found = chat_format(finetune(), PretrainedTokenizer(path=str(path)))
        assert (found.template, found.bos, found.eos) == (TEMPLATE, "<s>", "</s>")
    (tmp_path / "chat_template.jinja").write_text("x" + TEMPLATE)
    tokenizer = PretrainedTokenizer(path=str(tmp_path))
    assert chat_format(finetune(), tokenizer).template == "x" + TEMPLATE
    assert chat_format(finetune(template="y" + TEMPLATE), tokenizer).template == "y" + TEMPLATE
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": TEMPLATE}]
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert chat_format(finetune(), tokenizer).template == TEMPLATE
    assert chat_format(finetune(), tokenizer).eos == tokenizer.separator


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "the tokenizer has no chat template"),
        ("{% for m in messages %}", "the chat template is none: line 1"),
        ("{{ messages[-1].content }}", "writes turn 2 of the conversation"),
        ("{{ raise_exception('no') }}", "cannot write the conversation that begins 'One?': no"),
    ],
)
def test_a_template_that_cannot_serve_is_refused_when_planning(template: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=r"^finetune\.template: ") as caught:
        chat_format(finetune(template=template), TrainedTokenizer(kind="trained", vocabulary=300))
    assert message in caught.value.message
    assert caught.value.remedy


def evaluation(plan: Plan) -> EvaluateJob:
    stage = plan.stage("evaluate")
    assert stage is not None
    assert isinstance(stage.job, EvaluateJob)
    return stage.job


def test_the_finished_student_is_evaluated(plans: MakePlans) -> None:
    [plan] = plans(FINETUNE, "export={}", "evaluate={suite: paper, tasks: [{task: arc_easy}]}")
    job, finetune = evaluation(plan), plan.stage("finetune")
    assert [(task.label, task.shots) for task in job.tasks] == [
        ("hellaswag", 0),
        ("winogrande", 0),
        ("piqa", 0),
        ("kbqa", 0),
        ("mmlu", 6),
        ("c3", 5),
        ("ceval", 5),
        ("gsm8k", 8),
        ("arc_easy", 0),
    ]
    assert finetune is not None
    assert job.student.checkpoint.endswith(f"{finetune.directory}/output/checkpoint")
    assert str(job.model).endswith("/export-bfloat16/output/huggingface")
    assert {key.partition(":")[0] for key in plan.stages[-1].needs} == {
        "tokenize",
        "tokenize-conversations",
        "finetune",
        "export",
    }


def test_without_tasks_nothing_is_exported(plans: MakePlans) -> None:
    [plan] = plans("evaluate={}")
    assert evaluation(plan).model is None
    assert plan.stage("export") is None
    assert evaluation(plan).student.checkpoint.endswith(f"{plan.training.directory}/output/checkpoint")


def test_content_of_task_files_counts(plans: MakePlans, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    override = f"evaluate={{include: {folder}, batch: 4}}"
    with pytest.raises(EnvironmentFault, match=r"evaluate\.include: there is no folder"):
        plans(override)
    folder.mkdir()
    (folder / "a.yaml").write_text("task: a\n")
    [before] = plans(override)
    (folder / "a.yaml").write_text("task: b\n")
    [after] = plans(override)
    assert evaluation(before).identity != evaluation(after).identity
    assert before.stages[-1].directory != after.stages[-1].directory
    assert before.hash == after.hash
    # neither where it lies counts, nor what Python leaves there, nor how many examples the model takes at once
    moved = folder.rename(tmp_path / "moved")
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    [same] = plans(f"evaluate={{include: {moved}, batch: 2}}")
    assert (evaluation(same).identity, same.hash) == (evaluation(after).identity, after.hash)


@pytest.mark.parametrize(("override", "changed"), [("tasks=[{task: a}]", True), ("limit=5", True), ("batch=2", False)])
def test_identity_of_an_evaluation(plans: MakePlans, override: str, changed: bool) -> None:
    [before], [after] = plans("export={}", "evaluate={}"), plans("export={}", "evaluate={}", f"evaluate.{override}")
    assert (evaluation(before).identity != evaluation(after).identity) == changed


AT = ("export={}", "evaluate={at: [9, 5, 9]}")


def earlier(plan: Plan) -> list[EvaluateJob]:
    return [stage.job for stage in plan.stages if isinstance(stage.job, EvaluateJob) and stage.job.at]


def test_steps_before_the_end_are_exported_and_evaluated(plans: MakePlans) -> None:
    [plan] = plans(*AT)
    [without] = plans("export={}", "evaluate={}")
    assert (plan.hash, evaluation(plan)) == (without.hash, evaluation(without))
    assert [stage.key for stage in plan.stages][: len(without.stages)] == [stage.key for stage in without.stages]
    assert [(job.at, job.student.step) for job in earlier(plan)] == [(5, 5), (9, 9)]
    for job in earlier(plan):
        assert job.student.checkpoint.endswith(f"{plan.training.directory}/output/checkpoint")
        assert str(job.model).endswith(f"/export-bfloat16-at-{job.at}/output/huggingface")
        assert job.title == f"evaluate pd at step {job.at}"
    assert len({stage.key for stage in plan.stages}) == len({stage.directory for stage in plan.stages}) == 10


def test_steps_before_the_end_are_fine_tuned_where_the_student_is(plans: MakePlans) -> None:
    [plan] = plans(FINETUNE, *AT)
    tuned = [stage for stage in plan.stages if stage.kind == "finetune"]
    jobs = [stage.job for stage in tuned if isinstance(stage.job, TrainJob)]
    assert [Path(job.initial.path).name for job in jobs if job.initial] == ["step-23", "step-5", "step-9"]
    assert [Path(stage.directory).name for stage in tuned] == ["finetune", "finetune-at-5", "finetune-at-9"]
    assert len({job.conversations for job in jobs}) == 1, "of the same samples"
    for job, stage in zip(earlier(plan), tuned[1:], strict=True):
        assert job.student.checkpoint.endswith(f"{stage.directory}/output/checkpoint")
        assert job.student.step == jobs[0].steps
    assert [stage.kind for stage in plan.stages].count("tokenize-conversations") == 1


def test_their_checkpoints_are_kept(plans: MakePlans, tmp_path: Path) -> None:
    """Beside the one before the decay; and what is on disk is in the plan's figures."""
    [before], [plan] = plans(), plans("evaluate={at: [9, 5]}")
    jobs = [each.training.job for each in (before, plan) if isinstance(each.training.job, TrainJob)]
    written = write_stage(plan.training, tmp_path).train_module.read_text(encoding="utf-8")
    assert f"hold=(5, 9, {held_step(jobs[0])})," in written
    sizes = [each.figures.stages[each.training.key].bytes or 0 for each in (before, plan)]
    counted = [checkpoint_figures(job) for job in jobs]
    assert sizes[1] - sizes[0] == 2 * counted[0].each
    assert (counted[1].kept, counted[1].saves) == (counted[0].kept + 2, counted[0].saves + 2)
