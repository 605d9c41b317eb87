"""`sweep`: which runs there are, what they are called, and where a value of a sweep is said to be."""

from __future__ import annotations

import pytest

from pdforge.errors import UsageError
from pdforge.recipe.dump import dump_recipe
from tests.recipe.sound import SOUND, findings, load, place_of

GRID = SOUND + "sweep:\n  grid: {objective.temperature: [0.5, 2], teacher.truncation.top_k: [50, 100]}\n"


def test_a_grid_takes_every_combination_in_the_order_written() -> None:
    loaded = load(GRID)
    values = [(each.recipe.objective.temperature, each.recipe.teacher.truncation.top_k) for each in loaded]
    assert values == [(0.5, 50), (0.5, 100), (2, 50), (2, 100)]
    assert loaded[0].name == "small-temperature-0.5-top_k-50"
    assert len({each.variant for each in loaded}) == 4


def test_paired_values_go_together_and_may_be_named() -> None:
    text = SOUND + (
        "sweep:\n  paired:\n"
        "  - {training.batch.global: 8, training.optimizer.learning_rate: 1e-3}\n"
        "  - {name: large, training.batch.global: 32, training.batch.micro: 4}\n"
        "  - {name: plain}\n"
    )
    small, large, plain = load(text)
    assert (small.variant, large.variant) == ("global-8-learning_rate-0.001", "large")
    batch = large.recipe.training.batch
    assert (batch.global_, batch.micro) == (32, 4)
    assert small.recipe.training.optimizer.learning_rate == 1e-3
    assert plain.recipe == load(SOUND)[0].recipe


def test_seeds_repeat_every_run() -> None:
    assert [each.recipe.training.seed for each in load(SOUND + "sweep: {seeds: 3}\n")] == [0, 1, 2]
    assert [each.variant for each in load(SOUND + "sweep: {seeds: [7, 9]}\n")] == ["seed-7", "seed-9"]
    assert len(load(GRID + "  seeds: 2\n")) == 8


def test_variants_and_sweep_multiply() -> None:
    text = SOUND + "variants:\n  lm: {objective: {alpha: 0}}\n  pd: {}\nsweep: {seeds: 2}\n"
    assert [each.variant for each in load(text)] == ["lm-seed-0", "lm-seed-1", "pd-seed-0", "pd-seed-1"]
    (one,) = load(text, variants=["pd-seed-1"], overrides=["training.seed=5"])
    assert one.recipe.training.seed == 5
    with pytest.raises(UsageError, match="did you mean pd-seed-1"):
        load(text, variants=["pd-sed-1"])


def test_a_swept_kind_replaces_the_other_one_and_gives_the_name() -> None:
    text = SOUND + "sweep:\n  grid: {objective.alpha: [0.5, {schedule: cosine}, {schedule: wsd, peak: 0.8}]}\n"
    loaded = load(text)
    assert [each.variant for each in loaded] == ["alpha-0.5", "alpha-cosine", "alpha-wsd"]
    assert [each.recipe.objective.alpha.schedule for each in loaded] == ["constant", "cosine", "wsd"]
    assert loaded[2].recipe.objective.alpha.warmup == 0.1  # merged with what the recipe says


def test_a_value_of_a_sweep_is_blamed_where_it_stands() -> None:
    text = GRID.replace("[0.5, 2]", "[0.5, ¦-2]")
    (found,) = findings(text.replace("¦", ""))
    assert (found.place.line, found.place.column) == place_of("¦", text)
    assert "-2; it must be more than 0 (variant temperature--2-top_k-50" in found.message
    (found,) = findings(SOUND + "sweep:\n  grid: {objective.temprature: [1]}\n")
    assert (found.code, found.place.line, found.place.column) == ("PD003", 27, 10)
    assert "did you mean temperature?" in found.help


def test_a_run_of_a_sweep_dumps_as_a_recipe_of_its_own() -> None:
    for each in load(GRID):
        assert load(dump_recipe(each.recipe))[0].recipe == each.recipe


FIELDS = "objective.temperature"
MALFORMED = [
    ("[1]", "sweep must be a mapping", "grid, paired, seeds"),
    ("{grd: {}}", "sweep has no key 'grd'", "its keys are"),
    ("{grid: [1]}", "grid must be a mapping", "grid: {"),
    ("{grid: {}}", "grid must be a mapping", "grid: {"),
    (f"{{grid: {{{FIELDS}: 1}}}}", f"{FIELDS} must be a list", "grid: {"),
    (f"{{grid: {{{FIELDS}: []}}}}", f"{FIELDS} must be a list", "grid: {"),
    ("{grid: {variants.a: [1]}}", "a sweep cannot set 'variants.a'", "objective.temperature"),
    ("{grid: {a b: [1]}}", "a sweep cannot set 'a b'", ""),
    ("{paired: {a: 1}}", "paired must be a list", "paired: ["),
    ("{paired: [1]}", "paired must be a list", "paired: ["),
    ("{paired: [{}]}", "a set of values is empty", "name"),
    (f"{{paired: [{{name: A B, {FIELDS}: 1}}]}}", "a set of values is named 'A B'", ""),
    ("{seeds: 0}", "seeds must be a number", "seeds: 3"),
    ("{seeds: true}", "seeds must be a number", "seeds: 3"),
    ("{seeds: []}", "seeds must be a number", "seeds: 3"),
    ("{seeds: [1, 1]}", "seed-1 and seed-1 of the sweep are the same", "leave one out"),
    (
        "{grid: {objective.loss: [{kind: jsd, beta: 0.3}, {kind: jsd, beta: 0.4}]}}",
        "two runs of the sweep are named loss-jsd",
        "paired",
    ),
    ("{seeds: 40, grid: {training.log_every: [" + ", ".join(map(str, range(1, 40))) + "]}}", "1560 runs", "split"),
    (f"{{paired: [{{{FIELDS}: 1, description: {'x' * 70}}}]}}", "at most 64", "paired"),
]


@pytest.mark.parametrize(("sweep", "message", "helping"), MALFORMED, ids=[message for _, message, _ in MALFORMED])
def test_what_is_not_well_formed_is_refused(sweep: str, message: str, helping: str) -> None:
    (found,) = findings(SOUND + f"sweep: {sweep}\n")
    assert (found.code, found.place.line) == ("PD009", 26)
    assert message in found.message
    assert helping in found.help


def test_one_value_in_two_spellings_is_refused_at_the_second() -> None:
    (found,) = findings(SOUND + "sweep:\n  grid: {objective.temperature: [1, 2, 1.0]}\n")
    assert found.message == "temperature-1 and temperature-1.0 of the sweep are the same"
    assert found.place.column == len("  grid: {objective.temperature: [1, 2, 1")


def test_no_sweep_is_one_run() -> None:
    for nothing in ("sweep:\n", "sweep: {}\n"):
        assert [each.variant for each in load(SOUND + nothing)] == [None]
