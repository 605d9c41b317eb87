"""A causal language model of transformers, without gradients, that sees packed sequences as a student does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from pdforge.errors import EnvironmentFault
from pdforge.pretrained import library
from pdforge.teachers.sharding import fill, shard_layers

_PROBED = 8
"""Tokens on which the two ways to the logits are compared."""


class HuggingFaceModel:
    """A model of `AutoModelForCausalLM`; documents of a packed sequence do not see each other."""

    def __init__(
        self,
        folder: Path,
        *,
        place: str,
        device: torch.device,
        dtype: torch.dtype,
        known: int,
        vocabulary: int,
        sequence_length: int,
        gguf: str | None = None,
        code: bool = False,
        mesh: DeviceMesh | None = None,
    ) -> None:
        """Load the model.

        Args:
            folder: in Hugging Face's format (`pdforge.pretrained.model_folder`).
            place: the recipe's field, for messages.
            device: where it runs.
            dtype: of weights and activations.
            known: ids that the tokenizer has; the model's further rows are padding, and cannot occur.
            vocabulary: the student's, V.
            sequence_length: of the sequences that it will see.
            gguf: the file below `folder` that holds the model, where it is one.
            code: whether code that comes with the model may run.
            mesh: over whose processes its decoder layers are sharded; a collective then, and so is `hidden`.

        Raises:
            EnvironmentFault: it cannot be loaded, lacks weights, holds one that is not finite, knows fewer tokens than
                the tokenizer, or attends within a window that is shorter than a sequence.
        """
        self._device, self._dtype, self._place = device, dtype, place
        self._known, self._vocabulary = known, vocabulary
        options = {"gguf_file": gguf, "trust_remote_code": code}
        config = self._tried(folder, lambda auto: auto.AutoConfig.from_pretrained(folder, **options))
        _require_whole_attention(config, sequence_length, folder, place)
        shape, self._attention = self._shape(folder, config, dtype, code=code)
        model: Any
        if mesh is None:
            model = self._load(folder, config, dtype, options).to(device)
        else:
            # one process has all of it, in the host's memory; the others build its shape and take their parts
            first = torch.distributed.get_rank() == 0
            whole = self._load(folder, config, dtype, options) if first else None
            model = shape
            shard_layers(_decoder_layers(model, place), mesh)
            model.to_empty(device=device)
            model.tie_weights()  # to_empty gave each its own
            fill(model, whole)
        self._model: Any = model.eval().requires_grad_(False)
        self._head: Any = self._model.get_output_embeddings()
        rows = self._head.weight.shape[0]
        if rows < known:
            raise EnvironmentFault(
                f"{place}: the model has {rows:,} tokens, the tokenizer {known:,}",
                remedy="use the tokenizer that the model was trained with",
            )
        self._apart = self._head_is_apart()

    def _shape(self, folder: Path, config: Any, dtype: torch.dtype, *, code: bool) -> tuple[nn.Module, str]:
        """The model without memory for its weights, and how it attends: eagerly where it knows no other way."""

        def build(auto: Any, attention: str) -> tuple[nn.Module, str]:
            with torch.device("meta"):
                model = auto.AutoModelForCausalLM.from_config(
                    config, dtype=dtype, attn_implementation=attention, trust_remote_code=code
                )
            return model, attention

        def build_either(auto: Any) -> tuple[nn.Module, str]:
            try:
                return build(auto, "sdpa")
            except ValueError:  # not for this model
                return build(auto, "eager")

        shape: tuple[nn.Module, str] = self._tried(folder, build_either)
        return shape

    def _load(self, folder: Path, config: Any, dtype: torch.dtype, options: dict[str, Any]) -> nn.Module:
        model: nn.Module
        model, report = self._tried(
            folder,
            lambda auto: auto.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=self._attention,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            ),
        )
        if missing := sorted(report["missing_keys"]):
            raise EnvironmentFault(
                f"{self._place}: the weights in {folder} lack {missing[0]} ({len(missing)} are missing)",
                remedy="a file is not there or not whole: fetch the model again",
            )
        require_finite(model.named_parameters(), f"{self._place}: {folder}")
        return model

    def _tried(self, folder: Path, load: Any) -> Any:
        try:
            return load(library("transformers"))
        except EnvironmentFault:
            raise
        except Exception as error:  # transformers raises whatever its models, and the files, meet
            first = (str(error).strip().splitlines() or [""])[0]
            raise EnvironmentFault(
                f"{self._place}: transformers cannot load {folder}: {type(error).__name__}: {first}",
                remedy="check that it is a causal language model that the installed transformers knows, and whole; "
                "where it brings its own code, trust_remote_code lets that run",
            ) from error

    @torch.no_grad()  # not inference_mode: FSDP2 keeps gathered weights, which must track their versions
    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """What `logits` takes, [B, L, …], of tokens [B, L] whose positions [B, L] restart at 0 with each document."""
        tokens, positions = tokens.to(self._device), positions.to(self._device)
        mask = document_mask(positions)
        if self._attention == "eager":  # adds it to the scores
            mask = torch.zeros_like(mask, dtype=self._dtype).masked_fill(~mask, torch.finfo(self._dtype).min)
        inputs = {
            "input_ids": tokens,
            "position_ids": positions,
            "attention_mask": mask,
            "use_cache": False,
        }
        if self._apart:
            states: Tensor = self._model.base_model(**inputs).last_hidden_state
            return states
        logits: Tensor = self._model(**inputs).logits
        return logits

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """Logits [..., V] of what `hidden` gave; -inf for ids that the tokenizer does not have."""
        logits = self._head(states) if self._apart else states
        fitted = logits.new_full((*logits.shape[:-1], self._vocabulary), -torch.inf)
        fitted[..., : self._known] = logits[..., : self._known]
        return fitted

    def _head_is_apart(self) -> bool:
        """Whether the logits are the output projection of the last hidden states, and nothing more.

        Then no tensor of all logits of a sequence need exist. Some models scale or cap what the projection gives.
        """
        tokens = torch.arange(_PROBED, device=self._device)[None] % self._known
        with torch.no_grad():
            whole = self._model(input_ids=tokens, use_cache=False)
            states = self._model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
            return bool(torch.equal(self._head(states), whole.logits))


def document_mask(positions: Tensor) -> Tensor:
    """bool [B, 1, L, L]: which place sees which: itself and those before it in its document.

    Args:
        positions: int [B, L]; 0 where a document starts.
    """
    document = (positions == 0).cumsum(-1)
    same = document[:, :, None] == document[:, None, :]
    return same.tril()[:, None]


def require_finite(weights: Iterable[tuple[str, Tensor]], place: str) -> None:
    """Refuse weights with a NaN or an infinity: raises EnvironmentFault that names the first."""
    for name, weight in weights:
        if not bool(torch.isfinite(weight).all()):
            raise EnvironmentFault(
                f"{place}: the weight {name} is not finite", remedy="the model is damaged: fetch or train it again"
            )


def _require_whole_attention(config: Any, sequence_length: int, folder: Path, place: str) -> None:
    window = getattr(config, "sliding_window", None)
    slides = getattr(config, "use_sliding_window", True) and window is not None
    kinds = set(getattr(config, "layer_types", None) or (["sliding_attention"] if slides else []))
    if "sliding_attention" in kinds and window is not None and window < sequence_length:
        raise EnvironmentFault(
            f"{place}: {folder} attends to the last {window:,} tokens only, a sequence has {sequence_length:,}",
            remedy=f"set data.sequence_length to {window} or less",
        )
    if other := kinds - {"full_attention", "sliding_attention"}:
        raise EnvironmentFault(
            f"{place}: {folder} has layers of the kind {', '.join(sorted(other))}, which carry one document's state "
            "into the next",
            remedy="use a teacher that has attention only",
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest < sequence_length:
        raise EnvironmentFault(
            f"{place}: {folder} was made for {longest:,} positions, a sequence has {sequence_length:,}",
            remedy=f"set data.sequence_length to {longest} or less",
        )


def _decoder_layers(model: nn.Module, place: str) -> nn.ModuleList:
    """The longest list of modules: a decoder's layers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise EnvironmentFault(
            f"{place}: this model has no list of layers that could be sharded", remedy="leave out `shard`"
        )
    return max(lists, key=len)
