"""`clusters.yaml`: profiles with positions, the user's before the repository's, built-in ones without a file."""

from __future__ import annotations

import pytest

from pdforge.errors import RecipeError, UsageError
from pdforge.layout import storage_root
from pdforge.plan.clusters import all_profiles, find_profile, read_clusters
from pdforge.plan.profile import Profile


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No file of profiles but those that a test writes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")


def test_local_and_slurm_are_built_in():
    assert find_profile("local").executor == "local"
    slurm = all_profiles()["slurm"][0]
    assert (slurm.executor, slurm.partition) == ("slurm", None)


def test_values_are_read_as_people_write_them(tmp_path):
    file = tmp_path / "clusters.yaml"
    file.write_text(
        "big: {executor: slurm, device: cuda, nodes: 4, processes_per_node: 8, memory: 64GiB, walltime: 1d12h,\n"
        "      exclude: [n3], secrets: [WANDB_API_KEY], sbatch: {mail-type: END, exclusive: true},\n"
        "      container: {image: team/image.sqsh}, watchdog: {train: 10m}}\n"
    )
    big = read_clusters(file)["big"]
    assert (big.name, big.processes, big.memory, big.walltime_minutes) == ("big", 32, 64 * 2**30, 36 * 60)
    assert big.sbatch == {"mail-type": "END", "exclusive": True}
    assert (big.watchdog.of("train"), big.watchdog.of("pretrain-teacher")) == (600, 1800)


def test_what_a_shell_reads_may_have_lines(tmp_path):
    file = tmp_path / "clusters.yaml"
    file.write_text("a:\n  setup:\n  - |\n    if true; then\n    \tmodule load cuda\n    fi\n  environment: {A: ''}\n")
    assert read_clusters(file)["a"].setup == ("if true; then\n\tmodule load cuda\nfi\n",)


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "helping"),
    [
        ("a:\n  executor: slrum\n", 2, 13, "executor is 'slrum'", "slurm"),
        ("a:\n  walltime: 5x\n", 2, 13, "it must be a duration such as 30m", "time limit"),
        ("a:\n  nodes: 0\n", 2, 10, "it must be at least 1", ""),
        ("a:\n  partitoin: main\n", 2, 3, "profile a has no key 'partitoin'", "did you mean partition?"),
        ("a:\n  container: {runtime: pyxis}\n", 2, 3, "container lacks image", ""),
        ("a:\n  name: b\n", 2, 3, "has no key 'name'", "its key in the file is its name"),
        (
            "a: {executor: slurm, device: cuda, processes_per_node: 16, gpus_per_node: 8}\n",
            1,
            75,
            "gpus_per_node is 8; it must be at least 16: one for each of `processes_per_node`",
            "GPUs to ask for",
        ),
        ("a: {executor: slurm, walltime: 5m, signal_delay: 5m}\n", 1, 50, "shorter than `walltime` (300 s)", "to save"),
        ("a: {executor: slurm, walltime: 1m}\n", 1, 4, "signal_delay is 120; it must be shorter", "to save"),
        ("a: {sbatch: {nodes: 3}}\n", 1, 21, "the profile's `nodes` says it", ""),
        ("a: {sbatch: {ntasks_per_node: 3}}\n", 1, 31, "the profile's `processes_per_node` says it", ""),
        ("a: {sbatch: {requeue: true}}\n", 1, 23, "left out of `sbatch`: pdforge sets it itself", ""),
        ("a: {nodes: 2}\n", 1, 12, "it must be 1 without `executor: slurm`", ""),
        ("a: {gpus: [0, -1]}\n", 1, 15, "it must be at least 0", ""),
        ("a: {mfu: 1.0e-300}\n", 1, 10, "it must be at least 0.001", ""),
        ("a: {peak_flops: 1.0e-300}\n", 1, 17, "it must be at least 1e+09", ""),
        ("a: {price: 1.0e+308}\n", 1, 12, "it must be at most 1e+09", ""),
        ('a: {account: "a\\nb"}\n', 1, 14, "it must be text of one line", "account to charge"),
        ('a: {sbatch: {comment: "a\\nb"}}\n', 1, 23, "characters or a whole number or true or false", ""),
        ('a: {sbatch: {"a\\nb": c}}\n', 1, 22, "it must be text of one line", ""),
        ('a: {exclude: [n1, "n\\t2"]}\n', 1, 19, "it must be text of one line", ""),
        ('a: {setup: ["a\\0b"]}\n', 1, 13, "it must be text without control characters", ""),
        ("a: {environment: {A B: c}}\n", 1, 24, "it must be called as variables are", ""),
        ("a: 3\n", 1, 4, "profile a must be a mapping", ""),
        ("- a\n", 1, 1, "a mapping from names to profiles", ""),
    ],
)
def test_findings_have_places(tmp_path, text, line, column, message, helping):
    file = tmp_path / "clusters.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_clusters(file)
    (found,) = caught.value.diagnostics
    assert (found.place.line, found.place.column) == (line, column)
    assert message in found.message
    assert helping in found.help


def test_the_user_overrides_the_repository_which_overrides_what_is_built_in(tmp_path):
    (tmp_path / "work" / "clusters.yaml").write_text(
        "slurm: {executor: slurm, nodes: 2}\nmine: {processes_per_node: 3}\n"
    )
    (tmp_path / "config" / "pdforge").mkdir(parents=True)
    (tmp_path / "config" / "pdforge" / "clusters.yaml").write_text("mine: {processes_per_node: 5}\n")
    profiles = all_profiles()
    assert profiles["slurm"][0].nodes == 2
    assert profiles["mine"][0].processes == 5
    assert profiles["local"][1] == "built in"


def test_without_a_home_directory_the_user_has_no_file(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "~")
    (tmp_path / "work" / "clusters.yaml").write_text("mine: {}\n")
    assert list(all_profiles()) == ["local", "slurm", "mine"]
    with pytest.raises(UsageError, match=r"storage root ~/runs: there is no home directory ~"):
        storage_root("~/runs")


def test_an_unknown_name_is_answered_with_a_suggestion():
    with pytest.raises(UsageError) as caught:
        find_profile("slrum")
    assert "did you mean slurm?" in caught.value.remedy


def test_processes_are_divided_over_nodes():
    two = Profile(name="two", executor="slurm", nodes=2, processes_per_node=4)
    assert two.processes == 8
    assert two.with_processes(6).processes_per_node == 3
    with pytest.raises(UsageError, match="does not divide over the 2 nodes"):
        two.with_processes(3)


def test_each_process_has_a_gpu_of_its_own():
    eight = Profile(name="eight", executor="slurm", device="cuda", nodes=8, processes_per_node=8, gpus_per_node=8)
    assert eight.with_processes(64).processes == 64
    with pytest.raises(UsageError, match="--processes 128: profile 'eight' has 64 GPUs on 8 nodes") as caught:
        eight.with_processes(128)
    assert caught.value.remedy == "accepted: at most 64"
    chosen = Profile(name="chosen", device="cuda", gpus=(0, 2))
    with pytest.raises(UsageError, match="--processes 3: profile 'chosen' has 2 GPUs"):
        chosen.with_processes(3)
    cores = Profile(name="cores", executor="slurm", processes_per_node=2, gpus_per_node=1)
    assert cores.with_processes(4).processes == 4


def test_a_capture_that_is_an_array_has_the_processes_of_its_tasks():
    array = Profile(name="array", executor="slurm", nodes=2, processes_per_node=4, capture_tasks=32)
    assert (array.at_once("capture", 8), array.at_once("train", 8)) == (128, 8)
    assert array.model_copy(update={"array_parallelism": 5}).at_once("capture", 8) == 20
    assert array.model_copy(update={"capture_tasks": 1}).at_once("capture", 8) == 8
    assert array.model_copy(update={"executor": "local"}).at_once("capture", 8) == 8
