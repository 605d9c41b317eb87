"""The mock batch before the first step: leaves no trace, and says what to do where it does not fit."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch
from torchtitan.trainer import Trainer

from pdforge.errors import EnvironmentFault
from pdforge.layout import StageDirectory
from pdforge.titan.loader import StoreLoader
from pdforge.titan.rehearsal import VARIABLE, rehearse, wanted
from tests.stages.conftest import ENVIRONMENT, rows
from tests.titan.conftest import Bench


def test_only_a_gpu_rehearses_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (wanted(cpu), wanted(cuda)) == (False, True)
    monkeypatch.setenv(VARIABLE, "1")
    assert wanted(cpu)
    monkeypatch.setenv(VARIABLE, "0")
    assert not wanted(cuda)


@pytest.mark.slow
def test_a_run_with_it_is_the_same_bits(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, the objective's parts and gradient norms of the first steps, and of those after a restart."""
    monkeypatch.setitem(ENVIRONMENT, VARIABLE, "1")
    said = [bench.train(tmp_path, "--training.steps", last) for last in ("2", "4")]
    assert all("mock batch: forward and backward" in each for each in said)
    found = [row for row in rows(StageDirectory(tmp_path)) if "loss" in row]
    assert found == [row for row in bench.straight if "loss" in row][:4]
    assert len(found) == 4


def trainer() -> types.SimpleNamespace:
    """What a rehearsal looks at of a trainer of one small layer."""
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    optimizers = types.SimpleNamespace(optimizers=[optimizer], zero_grad=optimizer.zero_grad)
    training = types.SimpleNamespace(local_batch_size=32, seq_len=8, global_batch_size=64)
    return types.SimpleNamespace(
        config=types.SimpleNamespace(
            training=training,
            parallelism=types.SimpleNamespace(pipeline_parallel_microbatch_size=1),
            dataloader=StoreLoader.Config(),
        ),
        device=torch.device("cpu"),
        parallel_dims=types.SimpleNamespace(pp_enabled=False),
        model_parts=[layer],
        optimizers=optimizers,
        objective=None,
        ntokens_seen=7,
        gradient_accumulation_steps=4,
        num_pipeline_parallel_microbatches=1,
    )


def test_what_does_not_fit_is_bad_input_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(Trainer, "forward_backward_step", full)
    with pytest.raises(EnvironmentFault) as raised:
        rehearse(trainer())  # type: ignore[arg-type]
    assert "32 sequences of 8 tokens" in raised.value.message
    assert "Tried to allocate 2.00 GiB." in raised.value.message
    for way in ("batch.micro", "loss_chunks", "activation_checkpointing", "pdforge tune"):
        assert way in raised.value.remedy


def test_nothing_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    one, calls = trainer(), []

    def step(of: types.SimpleNamespace, *, input_dict: dict[str, torch.Tensor], **_: object) -> None:
        calls.append(tuple(input_dict["input"].shape))
        of.ntokens_seen += 1
        of.model_parts[0](torch.rand(2, 4)).sum().backward()

    monkeypatch.setattr(Trainer, "forward_backward_step", step)
    state, weights = torch.get_rng_state(), [each.clone() for each in one.model_parts[0].parameters()]
    rehearse(one)  # type: ignore[arg-type]
    # the second on top of the first one's gradients
    assert calls == [(32, 8), (32, 8)]
    assert one.ntokens_seen == 7
    assert torch.equal(torch.get_rng_state(), state)
    assert all(each.grad is None for each in one.model_parts[0].parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, one.model_parts[0].parameters(), strict=True))
    assert not one.optimizers.optimizers[0].state
