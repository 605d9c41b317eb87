"""The harness on small tasks of our own: no data set from anywhere, no network."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.model import LM

from pdforge.errors import StageFailed, UsageError
from pdforge.evaluation import check
from pdforge.evaluation.card import add_to_card
from pdforge.evaluation.harness import DataSet, Harness, score_of
from pdforge.recipe.models import EvaluationTask
from pdforge.recipe.parts.after import SUITES

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}  # beside this file
output_type: multiple_choice
test_split: test
fewshot_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""


def task(name: str, **options: Any) -> EvaluationTask:
    return EvaluationTask(task=name, **options)


class Shortest(LM):
    """Holds the shortest choice for the likeliest."""

    def loglikelihood(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        return [(-float(len(request.args[1])), False) for request in requests]

    def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: Any, **_: Any) -> list[str]:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tasks: the shortest of two choices is right three times of four."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = [{"question": f"{n}?", "choices": ["a", "bbb"], "label": int(n % 4 == 0)} for n in range(16)]
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, data in (("short", "rows.jsonl"), ("gone", "gone.jsonl")):
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, data=data))
    (tasks / "silent.yaml").write_text("include: short.yaml\ntask: silent\nmetric_list: []\n")
    (tasks / "far.yaml").write_text("task: far\ndataset_path: somebody/data\noutput_type: multiple_choice\ntag: few\n")
    (tasks / "both.yaml").write_text("group: both\ntask: [short, far]\naggregate_metric_list: [{metric: acc}]\n")
    (tasks / "heap.yaml").write_text("group: heap\ntask: [short, far]\n")
    return tasks


def test_a_task_of_ones_own(folder: Path) -> None:
    harness = Harness(folder)
    found = harness.score(Shortest(), task("short"), limit=None)
    assert (found.metric, found.value, found.samples, found.is_share) == ("acc,none", 0.75, 16, True)
    assert found.stderr == pytest.approx((0.75 * 0.25 / 15) ** 0.5)
    assert found.metrics.keys() == {"acc,none", "acc_norm,none"}
    few = harness.score(Shortest(), task("short", shots=2, metric="acc_norm"), limit=4)
    assert (few.samples, few.metric, few.value) == (4, "acc_norm,none", few.metrics["acc_norm,none"])


@pytest.mark.parametrize(
    ("wrong", "message", "remedy"),
    [
        ({"task": "shart"}, "there is no task 'shart'", "did you mean short?"),
        ({"task": "gone"}, "the task 'gone' cannot be loaded: Unable to find", "check the task's file"),
        ({"task": "silent"}, "the task 'silent' measures nothing", "`metric_list`"),
        ({"task": "short", "metric": "f1"}, "'short' does not measure 'f1'", "it measures acc, acc_norm"),
        ({"task": "short", "shots": 17}, "17 solved examples of 'short' are asked for, and there are 16", "16 or less"),
        ({"task": "few"}, "'few' stands for 1 tasks that have no result together", "far"),
        ({"task": "heap"}, "'heap' is a group of tasks that has no result as a whole", "short, far"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], message: str, remedy: str
) -> None:
    monkeypatch.setattr(Harness, "_list_all", lambda _: None)  # many seconds, for a name that is not there either
    [problem] = check.problems([EvaluationTask(**wrong)], folder)
    assert message in problem.message
    assert remedy in problem.remedy


def test_a_task_whose_templates_do_not_fit_its_data(folder: Path) -> None:
    """The first example, which loading tries out, has what they take; the second has not."""
    rows = [{"question": {"text": "?"}}, {"question": None}]
    choices = {"choices": ["a", "b"], "label": 0}
    (folder / "others.jsonl").write_text("".join(json.dumps({**row, **choices}) + "\n" for row in rows))
    (folder / "broken.yaml").write_text(TASK.format(name="broken", data="others.jsonl").replace("ion}}", "ion.text}}"))
    with pytest.raises(StageFailed, match=r"the task 'broken' does not run: .*'None' has no attribute 'text'"):
        Harness(folder).score(Shortest(), task("broken"), limit=None)


def test_a_file_that_is_no_task(folder: Path) -> None:
    (folder / "torn.yaml").write_text("task: [a\n")
    [problem] = check.problems([task("short")], folder)
    assert "torn.yaml is no task file" in problem.message


def test_our_own_tasks(folder: Path) -> None:
    harness = Harness()
    assert harness.data_sets("pdforge_c3") == {DataSet("clue/clue", "c3")}
    found = harness.score(Shortest(), task("pdforge_python_names", shots=1), limit=40)
    assert found.samples == 40
    assert 0 <= found.value <= 1
    docs = harness.load(task("pdforge_python_names"))[0].test_docs()
    assert all(len(set(doc["choices"])) == 4 and doc["choices"][doc["label"]] not in doc["description"] for doc in docs)
    assert {doc["label"] for doc in docs} == {0, 1, 2, 3}


def test_data_sets_of_a_group(folder: Path) -> None:
    assert Harness(folder).data_sets("both") == {DataSet("json", None), DataSet("somebody/data", None)}


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_hub_that_must_not_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(variable, "1")
    assert list(check.problems([task("short")], folder)) == []
    [problem] = check.problems([task("short"), task("far")], folder)
    assert f"{variable} is set" in problem.message
    assert "somebody/data" in problem.message
    assert "held-out loss needs none" in problem.remedy


def test_a_hub_that_does_not_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:  # a port of this machine that nobody listens at
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        [problem] = check.problems([task("far")], folder)
    assert "Connection refused" in problem.message


def test_what_was_loaded_before_needs_no_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415 - as heavy as the harness

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    cached = tmp_path / "cache" / "somebody___data" / "default"
    cached.mkdir(parents=True)
    assert list(check.problems([task("far")], folder)) == []
    # another configuration of the same data set is another one
    (folder / "far.yaml").write_text((folder / "far.yaml").read_text() + "dataset_name: large\n")
    [problem] = check.problems([task("far")], folder)
    assert "does not hold somebody/data" in problem.message


@pytest.mark.slow
def test_the_papers_tasks_exist_in_the_harness() -> None:
    """Lists the harness's own thousands of files: seconds, many of them on a busy machine."""
    harness = Harness()
    data = {one.label: {path for path, _ in harness.data_sets(one.task)} for one in SUITES["paper"]}
    assert data == {
        "hellaswag": {"Rowan/hellaswag"},
        "winogrande": {"allenai/winogrande"},
        "piqa": {"baber/piqa"},
        "kbqa": {"stanfordnlp/web_questions"},
        "mmlu": {"cais/mmlu"},
        "c3": {"clue/clue"},
        "ceval": {"ceval/ceval-exam"},
        "gsm8k": {"openai/gsm8k"},
    }
    assert len(harness.data_sets("pdforge_mmlu")) == 57
    with pytest.raises(UsageError, match="no task 'hellaswagg'") as caught:
        harness.find("hellaswagg")
    assert "did you mean hellaswag?" in caught.value.remedy


def test_which_metric_counts() -> None:
    def found(**row: Any) -> dict[str, Any]:
        return {"results": {"t": row}, "n-samples": {"t": {"effective": 3}}}

    both = {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": 0.1, "exact_match,flexible": 0.7}
    score = score_of(task("t"), found(alias="t", **both))
    assert (score.metric, score.value, score.stderr) == ("exact_match,strict-match", 0.5, 0.1)
    score = score_of(task("t", metric="exact_match,flexible"), found(**both))
    assert (score.value, score.stderr) == (0.7, None)
    score = score_of(task("t"), found(**{"word_perplexity,none": 20.5, "word_perplexity_stderr,none": "N/A"}))
    assert (score.metric, score.value, score.stderr, score.is_share) == ("word_perplexity,none", 20.5, None, False)
    with pytest.raises(UsageError, match="measures nothing"):
        score_of(task("t"), found(alias="t"))


def test_results_stand_in_the_card_once(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# m\n\nWords.\n\n## Recipe\n\n    recipe: m\n    ## Recipe\n")
    row = {"value": 0.5, "stderr": 0.01, "metric": "acc,none", "samples": 1000}
    add_to_card(card, {"heldout_loss": 2.0, "ece": 0.1, "tasks": {"piqa": row}})
    add_to_card(card, {"heldout_loss": 3.0, "ece": 0.1, "answer_loss": 1.5, "tasks": {"piqa": row}})
    assert card.read_text() == (
        "# m\n\nWords.\n\n## Results\n\n| | |\n|---|---|\n| held-out loss | 3.0000 nats a token |\n"
        "| expected calibration error | 0.1000 |\n| loss of held-out answers | 1.5000 nats a token |\n"
        "| piqa | 0.5000 ± 0.0100 (acc, 1,000 examples) |\n\n## Recipe\n\n    recipe: m\n    ## Recipe\n"
    )
