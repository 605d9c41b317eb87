"""A trained model in one process, without gradients: what capture runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.protocols.model_spec import ModelSpec

from pdforge.errors import EnvironmentFault
from pdforge.plan.jobs import ModelSource
from pdforge.teachers.huggingface import require_finite
from pdforge.teachers.sharding import shard_layers
from pdforge.titan.checkpoints import require_weights, unreadable
from pdforge.titan.models import decoder_of


def load(
    source: ModelSource, device: torch.device, dtype: torch.dtype, *, mesh: DeviceMesh | None = None
) -> FrozenModel:
    """The model of a torchtitan checkpoint, or with weights in Hugging Face's format."""
    spec = decoder_of(source.architecture, vocabulary=source.vocabulary, sequence_length=source.sequence_length)
    folder = Path(source.checkpoint)
    weights = folder if source.step is None else folder / f"step-{source.step}"
    return FrozenModel(
        spec,
        weights=weights,
        huggingface=source.step is None,
        place=source.place,
        device=device,
        dtype=dtype,
        mesh=mesh,
    )


def _load(model: nn.Module, folder: Path, adapter: Any, *, alone: bool) -> None:
    """Weights of a folder into a model, through an adapter where they have Hugging Face's names; a collective unless
    it is `alone`.
    """
    weights = model.state_dict()
    if adapter is None:
        state_dict_loader.load(weights, checkpoint_id=str(folder), no_dist=alone)
    else:
        theirs = adapter.to_hf(weights)
        state_dict_loader.load(theirs, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
        weights = adapter.from_hf(theirs)
    model.load_state_dict(weights)


class FrozenModel:
    """A decoder with loaded weights; documents of a packed sequence do not see each other, exactly as in training."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        weights: Path,
        huggingface: bool = False,
        place: str = "teacher.model",
        device: torch.device,
        dtype: torch.dtype,
        mesh: DeviceMesh | None = None,
    ) -> None:
        """Build the model and load its weights.

        Args:
            spec: what `decoder` returns.
            weights: a torchtitan checkpoint (`…/step-N`), of any number of processes; or, with `huggingface`, a
                directory in that format.
            huggingface: which of both.
            place: the model's field in the recipe, for messages.
            device: where it runs.
            dtype: of weights and activations.
            mesh: over whose processes its layers are sharded; a collective then, and so is `hidden`.

        Raises:
            EnvironmentFault: no such weights, of another shape, unreadable, or one is not finite.
        """
        if not huggingface and not (weights / ".metadata").exists():
            raise EnvironmentFault(
                f"no checkpoint at {weights}",
                remedy="check `path` and `step`; or it was removed: run the stage that leaves it again",
            )
        with torch.device("meta"):
            model = spec.model.build()
        if mesh is not None:
            shard_layers(model.layers.values(), mesh)
        model.to_empty(device=device)
        with torch.no_grad():
            # parameters are overwritten below; buffers, such as rotary frequencies, are not in a checkpoint
            model.init_weights(buffer_device=None)
        adapter = spec.state_dict_adapter(spec.model, None) if huggingface else None
        require_weights(weights, model.state_dict(), adapter, place=place, of=place)
        try:
            _load(model, weights, adapter, alone=mesh is None)
        except (CheckpointException, SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise unreadable(weights, error) from error
        require_finite(model.named_parameters(), str(weights))
        head = model.lm_head
        assert isinstance(head, nn.Module)
        # the output projection runs apart, so that no tensor of all logits of a sequence need exist
        model._skip_lm_head = True
        # not model.to(dtype): that would also cast the complex rotary frequencies, and drop their imaginary part
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        self.spec = spec
        self._model, self._head = model.eval(), head
        self._device = device

    def weights(self) -> dict[str, Tensor]:
        """The weights by torchtitan's names."""
        return self._model.state_dict()

    def round_to(self, dtype: torch.dtype) -> None:
        """Round the weights to `dtype`, and go on computing as before: what a copy in `dtype` holds, exactly."""
        for parameter in self._model.parameters():
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)

    @torch.no_grad()  # not inference_mode: FSDP2 keeps gathered weights, which must track their versions
    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final hidden states [B, L, H] of tokens [B, L] whose positions [B, L] restart at 0 with each document."""
        tokens, positions = tokens.to(self._device), positions.to(self._device)
        masks = self._model.get_attention_masks(positions=positions)
        states: Tensor = self._model(tokens, positions=positions, attention_masks=masks)
        return states

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., H]."""
        logits: Tensor = self._head(hidden)
        return logits
