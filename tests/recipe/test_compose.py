"""`extends`, `variants` and `--set`: what wins, and whose place a finding names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdforge.diagnostics import Place
from pdforge.errors import RecipeError, UsageError
from pdforge.recipe.load import load_recipes
from tests.recipe.sound import SOUND, findings, load, spoil


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_wins_over_what_it_extends_and_lists_replace(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", SOUND.replace("tokens: 600k", "tokens: 600k\n  optimizer: {betas: [0.8, 0.9]}"))
    source = write(
        tmp_path / "sub" / "mine.yaml",
        "extends: ../base.yaml\nrecipe: mine\ntraining:\n  optimizer: {betas: [0.5, 0.6]}\n  seed: 7\n",
    )
    (loaded,) = load_recipes(source)
    assert loaded.recipe.recipe == loaded.name == "mine"
    assert loaded.recipe.training.optimizer.betas == (0.5, 0.6)
    assert loaded.recipe.training.seed == 7
    assert loaded.recipe.training.tokens == 600_000
    assert loaded.place("training.seed") == Place(source, 5, 9)
    assert Path(loaded.place("training.batch.micro").file).samefile(tmp_path / "base.yaml")


def test_later_of_several_bases_win(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", SOUND)
    write(tmp_path / "b.yaml", "objective: {temperature: 3}\n")
    write(tmp_path / "c.yaml", "objective: {temperature: 4}\n")
    source = write(tmp_path / "d.yaml", "extends: [a.yaml, b.yaml, c.yaml]\n")
    assert load_recipes(source)[0].recipe.objective.temperature == 4


def test_an_error_points_at_the_file_that_set_the_value(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", spoil("top_p: 0.95", "top_p: 7"))
    source = write(tmp_path / "mine.yaml", "extends: base.yaml\nobjective: {temperature: cold}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipes(source)
    places = {d.field: d.place for d in caught.value.diagnostics}
    assert places["teacher.truncation.top_p"] == Place(base, 16, 23)
    assert places["objective.temperature"] == Place(source, 2, 26)


def test_a_cycle_is_refused_where_it_closes(tmp_path: Path) -> None:
    a = write(tmp_path / "a.yaml", "extends: b.yaml\n")
    b = write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(RecipeError, match="extends this file") as caught:
        load_recipes(a)
    assert caught.value.diagnostics[0].place == Place(b, 1, 10)
    with pytest.raises(RecipeError, match="extends this file"):
        load_recipes(write(tmp_path / "c.yaml", "extends: c.yaml\n"))


def test_a_wide_lattice_of_bases_is_read_once_each(tmp_path: Path) -> None:
    write(tmp_path / "0.yaml", SOUND)
    for level in range(1, 60):
        write(tmp_path / f"{level}.yaml", f"extends: [{level - 1}.yaml, {level - 1}.yaml]\n")
    assert load_recipes(str(tmp_path / "59.yaml"))[0].recipe == load(SOUND)[0].recipe


def test_a_gallery_recipe_can_be_extended(tmp_path: Path) -> None:
    source = write(tmp_path / "mine.yaml", "extends: pd_star\nrecipe: mine\n")
    assert [loaded.name for loaded in load_recipes(source)] == ["mine-1.9b", "mine-3.8b", "mine-6.8b"]


def test_syntax_of_a_base_is_blamed_on_the_base(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "a: b: c\n")
    with pytest.raises(RecipeError) as caught:
        load_recipes(write(tmp_path / "mine.yaml", "extends: base.yaml\n"))
    assert caught.value.diagnostics[0].place == Place(base, 1, 5)


VARIANTS = SOUND + "variants:\n  lm: {objective: {alpha: 0}}\n  hot: {objective: {temperature: 4}}\n  plain:\n"


def test_one_recipe_a_variant() -> None:
    lm, hot, plain = load(VARIANTS)
    assert [each.name for each in (lm, hot, plain)] == ["small-lm", "small-hot", "small-plain"]
    assert lm.recipe.objective.alpha.schedule == "constant"
    assert (hot.recipe.objective.temperature, lm.recipe.objective.temperature) == (4, 1)
    assert plain.recipe == load(SOUND)[0].recipe
    assert [each.variant for each in load(VARIANTS, variants=["plain", "lm"])] == ["plain", "lm"]


def test_unknown_variants_are_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="did you mean plain"):
        load(VARIANTS, variants=["plane"])
    with pytest.raises(UsageError, match="no variants"):
        load(SOUND, variants=["lm"])


def test_findings_of_all_variants_come_together_and_say_whose_they_are() -> None:
    text = spoil("temperature: 1.0", "temperature: 0") + (
        "variants:\n  a: {training: {tokens: 1}}\n  b: {training: {tokens: x}}\n  c: {objective: {temperature: 1}}\n"
    )
    found = findings(text)
    assert [d.message.partition("it must")[2] for d in found] == [
        " be more than 0 (variant a, b)",
        " be a count such as 100B, 12.5M, 500k or 8_388_608 (variant b)",
    ]


def test_naming_another_kind_replaces_the_old_one_whole() -> None:
    for change in ("alpha: {schedule: cosine}", "alpha: {schedule: cosine, peak: 0.5}"):
        (loaded,) = load(SOUND + f"variants:\n  a: {{objective: {{{change}}}}}\n")
        assert loaded.recipe.objective.alpha.schedule == "cosine"
    (loaded,) = load(SOUND + "variants:\n  a: {objective: {alpha: {schedule: wsd, peak: 0.5}}}\n")
    assert loaded.recipe.objective.alpha.warmup == 0.1  # the same kind merges
    implied = spoil("{kind: trained, vocabulary: 2048}", "{path: some/where, vocabulary: 2048}")
    (loaded,) = load(implied + "variants:\n  a: {data: {tokenizer: {kind: trained, vocabulary: 300}}}\n")
    assert loaded.recipe.data.tokenizer.vocabulary == 300
    (loaded,) = load(SOUND + "variants:\n  a: {teacher: {truncation: {kind: topp_topk, top_k: 20}}}\n")
    assert loaded.recipe.teacher is not None
    assert (loaded.recipe.teacher.truncation.top_p, loaded.recipe.teacher.truncation.top_k) == (0.95, 20)


def test_scalars_and_mappings_replace_each_other() -> None:
    (loaded,) = load(spoil("{schedule: wsd, peak: 0.9, warmup: 10%, decay: 1%}", "0.5") + "variants: {a: }\n")
    assert loaded.recipe.objective.alpha.value == 0.5
    (loaded,) = load(SOUND, overrides=["teacher=null", "objective.alpha=0"])
    assert loaded.recipe.teacher is None


def test_set_wins_over_the_variant_and_is_a_place_of_its_own() -> None:
    (loaded,) = load(VARIANTS, variants=["hot"], overrides=["objective.temperature=2", "training.batch.micro=4"])
    assert (loaded.recipe.objective.temperature, loaded.recipe.training.batch.micro) == (2, 4)
    assert str(loaded.place("objective.temperature")) == "--set objective.temperature"
    (found,) = findings(SOUND, overrides=["objective.temperature=-1"])
    assert str(found.place) == "--set objective.temperature"
    (found,) = findings(SOUND, overrides=["objective.temprature=1"])
    assert (found.code, str(found.place)) == ("PD003", "--set objective.temprature")
    assert "did you mean temperature" in found.help


def test_an_item_of_a_list_has_its_number() -> None:
    changes = ["teachers.0.weight=0.7", "teachers.1.weight=0.3", "teachers.0.truncation.top_k=20"]
    [loaded] = load_recipes("beyond/two_teachers", variants=["of-both"], overrides=changes)
    first, second = loaded.recipe.teachers
    assert (first.weight, second.weight) == (0.7, 0.3)
    assert first.truncation.model_dump() == {"kind": "topp_topk", "top_p": 0.95, "top_k": 20}
    drawn = ["objective.temperature=1", "teachers.1.truncation={kind: sample, draws: 50}"]
    [loaded] = load_recipes("beyond/two_teachers", variants=["of-both"], overrides=drawn)
    assert loaded.recipe.teachers[1].truncation.kind == "sample"
    with pytest.raises(RecipeError) as raised:
        load_recipes("beyond/two_teachers", variants=["of-both"], overrides=["teachers.2.weight=1"])
    assert "must be a list" in raised.value.diagnostics[0].message


def test_the_value_of_set_is_yaml() -> None:
    (loaded,) = load(SOUND, overrides=["training.optimizer={betas: [0.1, 0.2]}", "description='a=b'", "data.seed=1k"])
    assert loaded.recipe.training.optimizer.betas == (0.1, 0.2)
    assert (loaded.recipe.description, loaded.recipe.data.seed) == ("a=b", 1000)
    (found,) = findings(SOUND, overrides=["training={a"])
    assert (found.code, str(found.place)) == ("PD001", "--set training")


@pytest.mark.parametrize("override", ["", "a", "=1", "a..b=1", "a b=1", "variants.x=1", "extends=y", "sweep=1", ".a=1"])
def test_an_override_of_another_form_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load(SOUND, overrides=[override])


@pytest.mark.parametrize("source", ["nowhere.yaml", "quickstrat", "", "a\0b", "x" * 5000, "../recipes/quickstart", "."])
def test_a_source_that_is_nowhere_is_a_usage_error(source: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_recipes(source)
    assert caught.value.remedy


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"#" * 256_001)
    (tmp_path / "latin.yaml").write_bytes("recipe: größe\n".encode("latin-1"))
    for name, reason in (("large", "larger than 256 kB"), ("latin", "not UTF-8")):
        with pytest.raises(UsageError, match=reason):
            load_recipes(str(tmp_path / f"{name}.yaml"))


def test_a_byte_order_mark_is_no_part_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_text("\ufeff" + SOUND, encoding="utf-8")
    assert load_recipes(str(tmp_path / "bom.yaml"))[0].place("recipe").column == 9
