from __future__ import annotations

import pytest

from pdforge.plan.estimate import flops_per_token, kept_entries
from pdforge.recipe.models import Architecture, TopPTopK
from pdforge.recipe.sizes import parameter_count
from tests.plan.conftest import MakePlans

# arXiv 2410.16215, Table 14: shapes of the students and their parameters in billions, vocabulary 151,552
PAPER = [
    ({"hidden": 1024, "ffn": 4096, "layers": 12, "heads": 16, "kv_heads": 2, "tied_embeddings": True}, 0.334),
    ({"hidden": 1024, "ffn": 4096, "layers": 24, "heads": 16, "kv_heads": 2}, 0.669),
    ({"hidden": 2048, "ffn": 6912, "layers": 24, "heads": 16, "kv_heads": 2}, 1.866),
    ({"hidden": 3072, "ffn": 8192, "layers": 28, "heads": 24, "kv_heads": 8}, 3.750),
    ({"hidden": 4096, "ffn": 12800, "layers": 28, "heads": 32, "kv_heads": 8}, 6.820),
]


@pytest.mark.parametrize(("shape", "billions"), PAPER)
def test_parameters_are_the_papers(shape: dict[str, int], billions: float) -> None:
    assert parameter_count(Architecture(**shape), 151_552).total / 1e9 == pytest.approx(billions, abs=1e-3)


def test_query_and_key_norms_are_counted() -> None:
    shape = {"hidden": 64, "ffn": 128, "layers": 3, "heads": 4}
    extra = (
        parameter_count(Architecture(family="qwen3", **shape), 300).total
        - parameter_count(Architecture(**shape), 300).total
    )
    assert extra == 3 * 2 * 16


def test_flops_grow_with_the_sequence_and_skip_the_lookup() -> None:
    shape = Architecture(hidden=64, ffn=128, layers=3, heads=4)
    count = parameter_count(shape, 300)
    assert flops_per_token(shape, 300, 0) == 6 * (count.total - count.embedding)
    assert flops_per_token(shape, 300, 100) - flops_per_token(shape, 300, 0) == 6 * 3 * 64 * 2 * 100
    tied = shape.model_copy(update={"tied_embeddings": True})
    assert flops_per_token(tied, 300, 100) == flops_per_token(shape, 300, 100)


def test_kept_entries_are_the_papers_or_unknown() -> None:
    assert kept_entries(TopPTopK(top_p=0.95, top_k=50), 151_552) == 22.3
    assert kept_entries(TopPTopK(top_p=0.95, top_k=51), 151_552) is None
    assert kept_entries(TopPTopK(top_p=0.9, top_k=50), 151_552) is None
    assert kept_entries(TopPTopK(top_p=0.95, top_k=50), 2048) is None


def test_figures_of_a_plan(plans: MakePlans) -> None:
    [plan] = plans("training.checkpoint.keep=2")
    tokenize, _, capture, train = (plan.figures.stages[stage.key] for stage in plan.stages)
    assert tokenize.bytes == (20_000 // 64 + 1_000 // 64) * 64 * 2
    assert (capture.tokens, capture.bytes, capture.bytes_at_most) == (23 * 8 * 64, None, 23 * 8 * 64 * 20 * 3 // 2)
    parameters = plan.figures.student.parameters
    assert parameters is not None
    assert (train.steps, train.tokens, train.bytes) == (23, 23 * 8 * 64, 3 * 12 * parameters)
