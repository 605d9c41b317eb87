"""Weights that a student starts from: where they are, whether they are of its shape, and what names them."""

from __future__ import annotations

from pathlib import Path

from pdforge.errors import EnvironmentFault
from pdforge.identity import identity
from pdforge.plan.content import fingerprint_folder
from pdforge.plan.jobs import InitialWeights
from pdforge.pretrained import CONFIG, read_object, require_files
from pdforge.recipe.models import Architecture, HuggingFaceWeights, Initialise, TorchtitanWeights

_MODEL_TYPES = {"llama3": "llama", "qwen3": "qwen3"}


def initial_weights(initialise: Initialise, architecture: Architecture, vocabulary: int) -> tuple[InitialWeights, str]:
    """The weights and their identity, which is that of their content.

    Args:
        initialise: what the recipe says.
        architecture: the student's.
        vocabulary: rows of its embedding.

    Raises:
        EnvironmentFault: they are not there, are not whole, or are of another model.
    """
    match initialise:
        case TorchtitanWeights():
            folder = checkpoint_of(initialise.path, initialise.step, "student.initialise.path")
        case HuggingFaceWeights():
            folder = huggingface_folder(initialise.path, "student.initialise", architecture, "student", vocabulary)
    source = InitialWeights.model_construct(kind=initialise.kind, path=str(folder))
    return source, identity({"initialise": initialise.kind, "content": fingerprint_folder(folder)})


def checkpoint_of(path: str, step: int, place: str) -> Path:
    """The folder of a step's torchtitan checkpoint.

    Args:
        path: the checkpoint folder, with `step-N` below it.
        step: which of its steps.
        place: the recipe's field, for the message.

    Raises:
        EnvironmentFault: there is no such checkpoint.
    """
    folder = Path(path).absolute()
    checkpoint = folder / f"step-{step}"
    if not (checkpoint / ".metadata").is_file():
        there = sorted(one.name for one in folder.glob("step-*") if (one / ".metadata").is_file())
        raise EnvironmentFault(
            f"{place}: no torchtitan checkpoint at {checkpoint}",
            remedy=f"steps there: {', '.join(there) or 'none'}; `path` is the folder that holds the `step-N` folders",
        )
    return checkpoint


def huggingface_folder(path: str, place: str, architecture: Architecture, of: str, vocabulary: int) -> Path:
    """A directory in Hugging Face's format, whose weights a model of torchtitan's of this shape can take.

    Args:
        path: the directory.
        place: the recipe's field that has `path`, for messages.
        architecture: the model's.
        of: the recipe's field that has `architecture`.
        vocabulary: rows of its embedding.

    Raises:
        EnvironmentFault: it is not whole, or of another model.
    """
    folder = Path(path).absolute()
    require_files(folder, f"{place}.path")
    _require_shape(folder, f"{place}.path", architecture, f"{of}.architecture", vocabulary)
    return folder


def _require_shape(folder: Path, place: str, architecture: Architecture, of: str, vocabulary: int) -> None:
    """What the weights' own shapes do not tell: the number of heads, for one."""
    config = read_object(folder / CONFIG, place)
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    fields = {
        "family": ("model_type", config.get("model_type"), _MODEL_TYPES[architecture.family]),
        "hidden": ("hidden_size", hidden, architecture.hidden),
        "ffn": ("intermediate_size", config.get("intermediate_size"), architecture.ffn),
        "layers": ("num_hidden_layers", config.get("num_hidden_layers"), architecture.layers),
        "heads": ("num_attention_heads", heads, architecture.heads),
        "kv_heads": (
            "num_key_value_heads",
            config.get("num_key_value_heads") or heads,
            architecture.kv_heads or architecture.heads,
        ),
        "head_dim": (
            "head_dim",
            config.get("head_dim") or (hidden // heads if hidden and heads else None),
            architecture.head_dim or architecture.hidden // architecture.heads,
        ),
        "rope_theta": (
            "rope_theta",
            rope.get("rope_theta") or config.get("rope_theta") or 10_000.0,
            architecture.rope_theta,
        ),
        "tied_embeddings": (
            "tie_word_embeddings",
            config.get("tie_word_embeddings", False),
            architecture.tied_embeddings,
        ),
    }
    for field, (name, there, here) in fields.items():
        if there != here:
            raise EnvironmentFault(
                f"{place}: {folder / CONFIG} says {name} {there}, {of}.{field} is {here}",
                remedy=f"make {of}.{field} that of the weights",
            )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise EnvironmentFault(
            f"{place}: {folder / CONFIG} scales its rotary positions ({kind}), {of} does not",
            remedy="take the weights of a model without rope scaling",
        )
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            raise EnvironmentFault(
                f"{place}: {folder / CONFIG} says {name} true, {of} has no biases",
                remedy="take the weights of a model without biases",
            )
    if config.get("vocab_size") != vocabulary:
        raise EnvironmentFault(
            f"{place}: {folder / CONFIG} says vocab_size {config.get('vocab_size')}, it has {vocabulary} here",
            remedy="use the tokenizer of the weights; data.tokenizer.vocabulary sets the rows",
        )
