"""The commands as a user gives them: processes, exit codes, output."""

from __future__ import annotations

import json
import os
import signal

import pytest
from conftest import pdforge, processes_of, start, wait_for

from pdforge.launch.drive import write_runs
from pdforge.launch.find import find_targets
from pdforge.layout import read_json


def runs(folder):
    return {run["variant"]: run for run in json.loads(pdforge(folder, "status", "count.yaml", "--json"))["runs"]}


def write_plans(folder):
    plans = find_targets([str(folder / "count.yaml")], folder / "runs")
    write_runs(plans, folder / "runs")


def a_stage_works(folder):
    return any((folder / "runs").glob("**/progress.json"))


def test_run_then_everything_that_looks_at_it(folder):
    assert runs(folder)["a"]["state"] == "waiting"
    output = pdforge(folder, "run", "count.yaml")
    for line in ("tokenize: running", "tokenize: done", "train a: done", "train b: done"):
        assert line in output
    assert "2.5000" in output, "the held-out loss of the table"
    assert "pdforge report count.yaml" in output

    assert {run["state"] for run in runs(folder).values()} == {"done"}
    assert "everything" not in pdforge(folder, "status").lower()
    listing = pdforge(folder, "ls")
    assert listing.count("2 of 2") == 2
    (directory,) = [run["directory"] for run in runs(folder).values() if run["variant"] == "a"]
    assert "counts from 0" in pdforge(folder, "logs", directory, "train a", "--rank", "1")
    assert "rank 1 counts" in pdforge(folder, "logs", "count.yaml", "train b", "--rank", "1", "--lines", "1")

    again = pdforge(folder, "run", "count.yaml")
    assert "running" not in again
    assert "done already" in pdforge(folder, "submit", "count.yaml")
    assert "nothing runs" in pdforge(folder, "cancel", "count.yaml")


def test_a_failing_rank_is_an_error_with_its_message(folder, counter):
    counter(train={"steps": 10_000, "fail_rank": 1, "fail_at": 2})
    output = pdforge(folder, "run", "count.yaml", "--processes", "2", code=1)
    assert "stage `train a` failed in attempt 1; rank 1: RuntimeError: the counter broke" in output
    assert "stage `train b` failed in attempt 1" in output  # another run of the recipe: the first one stops it not
    assert "the counter broke" in start(folder, "logs", "count.yaml", "train a").communicate()[0]
    status = pdforge(folder, "status", "count.yaml")
    assert "failed" in status
    assert "rank1.log" in status.replace("\n", "")


def test_ctrl_c_saves_and_ends_with_75_and_run_goes_on(folder, counter):
    counter(tokens={"hold": (1, str(folder / "never"))})
    process = start(folder, "run", "count.yaml", "-v", "a", "-n", "2", "--at-once", "1")
    assert wait_for(lambda: a_stage_works(folder))
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: everything in the foreground
    output = process.communicate()[0]
    assert process.returncode == 75, output
    assert "go on  pdforge run count.yaml --variant a --processes 2 --at-once 1\n" in output
    assert "look   pdforge status count.yaml --variant a --processes 2\n" in output
    assert runs(folder)["a"]["stages"][0]["state"] == "stopped"
    counter()
    pdforge(folder, "run", "count.yaml", "-v", "a")
    page = json.loads(pdforge(folder, "status", "count.yaml", "-v", "a", "--timings", "--json"))
    tokenize, train = page["runs"][0]["stages"]
    assert [start["attempt"] for start in tokenize["timings"]] == [1, 2]
    for start_ in [*tokenize["timings"], *train["timings"]]:
        assert list(start_["seconds"]) == ["scheduler", "first step"], "a counter tells of no other phase"
        assert all(seconds > 0 for seconds in start_["seconds"].values())
        assert start_["total"] == pytest.approx(sum(start_["seconds"].values()))
    table = pdforge(folder, "status", "count.yaml", "-v", "a", "--timings")
    assert "to first new step" in table
    assert f"{train['timings'][0]['total']:.1f}" in table


def test_ctrl_c_twice_kills(folder, counter):
    counter(tokens={"steps": 2, "fail_rank": 0, "fail_at": 2, "how": "hang"})
    process = start(folder, "run", "count.yaml")
    assert wait_for(lambda: a_stage_works(folder))
    process.send_signal(signal.SIGINT)
    assert not wait_for(lambda: process.poll() is not None, 1.5), "once only asks"
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 75, output


def test_submit_status_logs_cancel(folder, counter):
    counter(tokens={"steps": 2000, "hold": (1, str(folder / "never"))})
    submitted = json.loads(pdforge(folder, "submit", "count.yaml", "--json"))
    assert submitted["state"] == "submitted"
    assert wait_for(lambda: a_stage_works(folder))
    again = json.loads(pdforge(folder, "submit", "count.yaml", "--json"))
    assert (again["state"], again["driver"]) == ("attached", submitted["driver"])
    state = runs(folder)["b"]
    assert (state["state"], state["driver"]) == ("running", submitted["driver"])
    assert state["stages"][0]["of"] == 2000

    following = start(folder, "logs", "count.yaml", "-f")
    assert "asked to save and end" in pdforge(folder, "cancel", "count.yaml")
    assert "rank 0 counts from 0" in following.communicate()[0], "-f ends with the attempt"
    assert wait_for(lambda: runs(folder)["a"]["driver"] is None)
    assert runs(folder)["a"]["stages"][0]["state"] == "stopped"
    assert not processes_of(folder)

    counter(tokens={"steps": 5})
    pdforge(folder, "submit", "count.yaml")
    assert wait_for(lambda: {(run["state"], run["driver"]) for run in runs(folder).values()} == {("done", None)})
    assert "train b: done" in next((folder / "runs").glob("count-a-*/driver.log")).read_text()


def test_cancel_kill_ends_what_does_not_listen(folder, counter):
    counter(tokens={"steps": 2, "fail_rank": 0, "fail_at": 2, "how": "hang"})
    pdforge(folder, "submit", "count.yaml")
    assert wait_for(lambda: a_stage_works(folder))
    assert "killed" in pdforge(folder, "cancel", "count.yaml", "--kill")
    assert wait_for(lambda: not processes_of(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no-such-recipe.yaml"], "no-such-recipe"),
        (["run", "count.yaml", "-v", "c"], "'c'"),
        (["logs", "count.yaml"], "no stage was started yet"),
        (["logs", "count.yaml", "evaluate"], "no stage 'evaluate'"),
        (["logs", "count.yaml", "tra"], "train a"),
        (["status", "no-such-run"], "no-such-run"),
        (["run", "count.yaml", "--cluster", "moon"], "'moon'"),
    ],
)
def test_bad_arguments_are_refused(folder, arguments, message):
    assert message in pdforge(folder, *arguments, code=2)
    assert not (folder / "runs").exists()


def test_a_damaged_plan_hides_no_other_run(folder):
    write_plans(folder)
    broken = next((folder / "runs").glob("count-b-*/plan.json"))
    broken.write_text('{"name": ')
    (folder / "runs" / "folder" / "plan.json").mkdir(parents=True)
    for command in ("ls", "status"):
        output = pdforge(folder, command).replace("\n", " ")
        assert "count-a" in output
        assert f"warning: {broken} is damaged" in output
        assert f"warning: {folder}/runs/folder/plan.json cannot be read: Is a directory" in output
    assert "plan.json" in pdforge(folder, "status", str(broken.parent), code=2)
    assert "name the recipe" in pdforge(folder, "status", "--variant", "a", code=2)


def test_a_root_that_is_a_file_is_not_an_empty_one(folder):
    for command in (["ls"], ["status"], ["store", "ls"], ["store", "verify"]):
        for root in ("count.yaml", "count.yaml/runs"):
            output = pdforge(folder, *command, "--root", root, code=2).replace("\n", " ")
            assert f"{folder}/count.yaml is no folder" in output


def test_a_run_of_another_root_says_which(folder):
    write_plans(folder)
    run = next((folder / "runs").glob("count-a-*"))
    assert read_json(run / "plan.json")["variant"] == "a"
    assert f"--root {folder / 'runs'}" in pdforge(folder, "status", str(run), "--root", "elsewhere", code=2)


def test_a_profile_says_where_its_runs_are(folder, monkeypatch):
    monkeypatch.delenv("PDFORGE_ROOT")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    (folder / "clusters.yaml").write_text(f"disk: {{root: {folder}/disk}}\n")
    chosen = ("count.yaml", "--variant", "a", "--cluster", "disk")
    done = pdforge(folder, "run", *chosen)
    (run,) = (folder / "disk").glob("count-a-*")
    assert f"--root {folder}/disk" in done
    assert not (folder / "runs").exists()
    assert json.loads(pdforge(folder, "status", *chosen, "--json"))["runs"][0]["state"] == "done"
    assert str(run) in pdforge(folder, "logs", *chosen, "--path")
    assert "Everything is done already" in pdforge(folder, "submit", *chosen)
    assert json.loads(pdforge(folder, "plan", *chosen, "--json"))["root"] == f"{folder}/disk"
    monkeypatch.setenv("PDFORGE_ROOT", str(folder / "variable"))
    assert json.loads(pdforge(folder, "plan", *chosen, "--json"))["root"] == f"{folder}/variable"
    assert json.loads(pdforge(folder, "plan", *chosen, "--json", "--root", "option"))["root"] == f"{folder}/option"


def test_every_command_finds_the_root_of_a_profile(folder, monkeypatch):
    """One way for all: `--cluster`, also for those that plan nothing. A SLURM that does not answer is not asked."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.delenv("PDFORGE_ROOT")
    (folder / "clusters.yaml").write_text(f"slurm: {{executor: slurm, root: {folder}/disk}}\n")
    pdforge(folder, "run", "count.yaml", "--variant", "a", "--root", "disk")
    (run,) = (folder / "disk").glob("count-a-*")
    there = ("--cluster", "slurm")
    assert run.name in pdforge(folder, "ls", *there)
    assert "done" in pdforge(folder, "status", *there)
    assert run.name in pdforge(folder, "status", run.name, *there)
    assert "nothing failed" in pdforge(folder, "postmortem", run.name, *there)
    assert f"every store below {folder}/disk" in pdforge(folder, "store", "gc", *there)
    assert f"{folder}/disk/tokens" in pdforge(folder, "store", "verify", *there)
    assert "Everything is done already" in pdforge(folder, "resume", run.name, *there)
    assert "Everything is done already" in pdforge(folder, "resume", f"disk/{run.name}")
    assert not (folder / "runs").exists()


def test_on_end_is_called_once_for_each_end_of_a_run(folder, counter, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    told = folder / "told"
    hook = f'echo "$PDFORGE_STATE $(basename $PDFORGE_RUN) $(basename $PDFORGE_STAGE) $GREETING" >> {told}'
    (folder / "clusters.yaml").write_text(f"here:\n  on_end: '{hook}'\n")
    monkeypatch.setenv("GREETING", "hello")

    def ends() -> list[list[str]]:
        lines = [line.split() for line in told.read_text().splitlines()]
        told.unlink()
        return [[state, run.rpartition("-")[0], *rest] for state, run, *rest in lines]

    command = ("run", "count.yaml", "--cluster", "here", "--retry")
    counter(**{"count-b": {"steps": 10_000, "fail_rank": 0, "fail_at": 2}})
    pdforge(folder, *command, code=1)
    assert ends() == [["done", "count-a", "train", "hello"], ["failed", "count-b", "train", "hello"]]

    counter(**{"count-b": {"steps": 10_000}})
    process = start(folder, *command)
    assert wait_for(lambda: runs(folder)["b"]["state"] == "running")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert ends() == [["stopped", "count-b", "train", "hello"]]

    counter()
    pdforge(folder, *command)
    assert ends() == [["done", "count-b", "train", "hello"]]
    pdforge(folder, *command)
    assert not told.exists(), "nothing has ended"


def test_the_profile_chooses_the_gpus_that_each_rank_sees(folder, counter, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    (folder / "clusters.yaml").write_text("two: {device: cuda, gpus: [5, 3], environment: {NCCL_DEBUG: WARN}}\n")
    counter(train={"shows": ["CUDA_VISIBLE_DEVICES", "LOCAL_RANK", "NCCL_DEBUG"]})
    pdforge(folder, "run", "count.yaml", "-v", "a", "--cluster", "two")
    (train,) = (folder / "runs").glob("count-a-*/train")
    shown = [(train / f"attempts/0001/rank{rank}.log").read_text().splitlines()[0] for rank in (0, 1)]
    assert shown == ["5,3 0 WARN", "5,3 1 WARN"], "a process for each GPU, which takes the one of its local rank"
    (folder / "clusters.yaml").write_text("two: {device: cuda, gpus: [5, 3], processes_per_node: 3}\n")
    refused = pdforge(folder, "run", "count.yaml", "-v", "b", "--cluster", "two", code=1)
    assert "clusters.yaml:1:21" in refused, refused
    assert "one for each of `processes_per_node`" in refused
