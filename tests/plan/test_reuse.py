"""Logit stores that serve another run: which do, what a plan says of it, and that no identity notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdforge.cli.store_gc import unneeded
from pdforge.layout import RunDirectory, StageDirectory, write_atomically
from pdforge.plan.jobs import CaptureJob, TrainJob
from pdforge.plan.model import Plan, Stage, merged_stages
from pdforge.plan.reuse import serves
from tests.plan.conftest import MakePlans

LOSSLESS = "teacher.logits.codec=lossless"


def capture(plan: Plan) -> CaptureJob:
    job = stage(plan).job
    assert isinstance(job, CaptureJob)
    return job


def stage(plan: Plan) -> Stage:
    found = plan.stage("capture")
    assert found is not None
    return found


def reads(plan: Plan) -> str:
    job = plan.stages[-1].job
    assert isinstance(job, TrainJob)
    assert job.logits is not None
    return job.logits


def finish(plan: Plan, root: Path) -> None:
    """What the capture stage of a plan leaves, as far as planning looks at it."""
    directory = StageDirectory(root / stage(plan).directory)
    write_atomically(directory.job_json, capture(plan).model_dump_json(by_alias=True))
    write_atomically(directory.done, "{}")


@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        ([LOSSLESS], [LOSSLESS, "teacher.truncation={top_p: 0.8, top_k: 10}"], True),
        ([LOSSLESS], [LOSSLESS, "teacher.truncation.top_k=21"], False),
        ([LOSSLESS], [LOSSLESS, "teacher.truncation.top_p=0.91"], False),
        ([], ["teacher.truncation.top_k=10"], False),  # the codec rounds: a cut is not what capture would keep
        ([LOSSLESS], [], False),
        ([], [LOSSLESS], False),
        (["teacher.logits.columns=[entropy, logsumexp]"], ["teacher.logits.columns=[entropy]"], True),
        ([], ["teacher.logits.columns=[entropy]"], False),
        (["training.tokens=20k"], [], True),
        ([], ["training.tokens=20k"], False),
        ([], ["training.tokens=2k"], False),  # its rank table would be learnt from less, and order sums otherwise
        ([LOSSLESS], [LOSSLESS, "training.tokens=2k"], True),
        ([], ["teacher.logits.shard_sequences=8"], True),
        ([], ["teacher.model.training.seed=5"], False),
        ([], ["data.seed=5"], False),
        (["teacher.truncation={kind: sample}"], ["teacher.truncation={kind: sample, draws: 20}"], False),
        (["teacher.truncation={kind: sample}"], ["teacher.truncation={kind: sample, seed: 1}"], False),
    ],
)
def test_which_store_serves_whom(plans: MakePlans, held: list[str], wanted: list[str], expected: bool) -> None:
    [one], [other] = plans(*held), plans(*wanted)
    assert bool(serves(capture(one), capture(other))) == expected


def test_an_alpha_that_follows_a_store_takes_no_longer_one(plans: MakePlans, tmp_path: Path) -> None:
    """What is recorded of a shard is its own: a last one of more samples would make another α of the same run."""
    online = ("teacher.logits={mode: online, from_step: 2}", LOSSLESS)
    follow = "objective.alpha={schedule: teacher_convergence}"
    [short], [long] = plans("training.tokens=4k", *online), plans("training.tokens=5k", *online)
    assert serves(capture(long), capture(short))
    assert not serves(capture(long), capture(short), followed=True)
    assert serves(capture(short), capture(short), followed=True)
    finish(long, tmp_path / "runs")
    assert reads(plans("training.tokens=4k", *online)[0]) == capture(long).output
    assert reads(plans("training.tokens=4k", *online, follow)[0]) == capture(short).output


def test_runs_that_keep_the_same_share_a_store_and_learn_of_it_what_each_wants(plans: MakePlans) -> None:
    keep = "teacher.logits.keep={top_p: 0.95, top_k: 100}"
    [wide], [narrow], [own] = plans(keep), plans(keep, "teacher.truncation.top_k=10"), plans()
    assert stage(wide) == stage(narrow) != stage(own)
    assert [plan.stages[-1].job.truncation.top_k for plan in (wide, narrow)] == [20, 10]
    assert wide.stages[-1].identity != narrow.stages[-1].identity
    # what is kept changes the rounding of what is read: another result than a store of its own gives
    assert wide.stages[-1].identity != own.stages[-1].identity
    # keeping what is learnt is the default, and says nothing new
    [same] = plans("teacher.logits.keep={top_p: 0.9, top_k: 20}")
    assert (same.hash, same.stages) == (own.hash, own.stages)


def test_a_whole_store_is_reused_and_no_identity_notices(plans: MakePlans, tmp_path: Path) -> None:
    narrow = (LOSSLESS, "teacher.truncation.top_k=10")
    [wide], [alone] = plans(LOSSLESS), plans(*narrow)
    assert not alone.reuses
    finish(wide, tmp_path / "runs")
    [sharing] = plans(*narrow)
    assert sharing.reuses.endswith("lossless, top-0.9-20 includes top-0.9-10")
    assert stage(sharing) == stage(wide)
    assert reads(sharing) == capture(wide).output != reads(alone)
    assert (sharing.hash, sharing.directory) == (alone.hash, alone.directory)
    assert sharing.stages[-1].identity == alone.stages[-1].identity
    assert stage(sharing).key in sharing.stages[-1].needs
    assert sharing.stages[-1].job.truncation.top_k == 10
    assert sharing.figures.stages.keys() == {one.key for one in sharing.stages}
    # its own comes first, once it is there
    finish(alone, tmp_path / "runs")
    [own] = plans(*narrow)
    assert own == alone
    assert Plan.model_validate_json(sharing.model_dump_json(by_alias=True)) == sharing


def test_an_unfinished_or_foreign_store_is_not_reused(plans: MakePlans, tmp_path: Path) -> None:
    [wide] = plans(LOSSLESS)
    finish(wide, tmp_path / "runs")
    directory = StageDirectory(tmp_path / "runs" / stage(wide).directory)
    directory.job_json.write_text('{"kind": "capture", "of": "another version"}')
    assert not plans(LOSSLESS, "teacher.truncation.top_k=10")[0].reuses
    finish(wide, tmp_path / "runs")
    directory.done.unlink()
    assert not plans(LOSSLESS, "teacher.truncation.top_k=10")[0].reuses


def test_the_widest_of_several_runs_captures_for_all(recipe: Path, plans: MakePlans) -> None:
    names = {"k5": "truncation: {top_k: 5}", "k20": "logits: {shard_sequences: 64}", "k12": "truncation: {top_k: 12}"}
    variants = "".join(f"  {name}: {{teacher: {{{change}}}}}\n" for name, change in names.items())
    recipe.write_text(recipe.read_text() + variants)
    of_all = plans(LOSSLESS, variants=())
    assert [plan.label for plan in of_all] == ["lm", "pd", *names]
    captures = [one for one in merged_stages(of_all) if one.kind == "capture"]
    # pd and k20 differ in the size of shards only: either would do, and one is taken
    assert len(captures) == 1
    assert captures[0].job.truncation.top_k == 20
    assert {reads(plan) for plan in of_all[1:]} == {captures[0].job.output}
    assert [bool(plan.reuses) for plan in of_all].count(True) == 3
    alone = [plans(LOSSLESS, variants=(name,))[0] for name in names]
    assert [plan.hash for plan in alone] == [plan.hash for plan in of_all[2:]]


def test_gc_keeps_what_is_reused(plans: MakePlans, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    [wide] = plans(LOSSLESS)
    finish(wide, root)
    [sharing] = plans(LOSSLESS, "teacher.truncation.top_k=10")
    assert unneeded(root) == [root / stage(wide).directory]
    write_atomically(RunDirectory(root / sharing.directory).plan, sharing.model_dump_json(by_alias=True))
    assert unneeded(root) == []


def test_the_page_and_its_json_say_it(recipe: Path, plans: MakePlans, tmp_path: Path) -> None:
    from tests.cli.pdforge_process import pdforge  # noqa: PLC0415 - only here

    [wide] = plans(LOSSLESS)
    arguments = ("plan", str(recipe), "--root", str(tmp_path / "runs"), "-n", "1", "--set", LOSSLESS)
    narrow = (*arguments, "--set", "teacher.truncation.top_k=10", "-v", "pd")
    assert "logits of pd: captures 11,776 tokens, at most" in pdforge(*arguments).stdout
    finish(wide, tmp_path / "runs")
    shown = " ".join(pdforge(*narrow).stdout.split())
    assert f"logits of pd: reuses store {stage(wide).identity} (184 sequences of the same teacher and tokens" in shown
    stores = json.loads(pdforge(*narrow, "--json").stdout)["logit_stores"]
    assert stores["pd"].startswith(f"reuses store {stage(wide).identity}")
    own = json.loads(pdforge(*arguments, "--json").stdout)["logit_stores"]
    assert own["lm"] == ""
    assert own["pd"] == f"reuses store {stage(wide).identity} (its own, captured before)"
