"""Shapes of teachers from outside, so that a plan needs no network to count their parameters.

Of a directory it is what `config.json` says; those of well-known models of the hub are bundled. Each of these was read
from the library that is named beside it, at that version, and counts exactly as many parameters as the library's own
model (a test builds them). Of any other it is the recipe's `teacher.model.architecture`, else unknown.
"""

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pdforge.errors import EnvironmentFault
from pdforge.plan.jobs import HuggingFaceSource, ModelSource
from pdforge.pretrained import CONFIG, read_object
from pdforge.recipe.models import Architecture
from pdforge.recipe.sizes import parameter_count

TORCHTITAN, TRANSFORMERS = "torchtitan 0.3.0", "transformers 5.23.0"


class Shape(NamedTuple):
    """A published model."""

    architecture: Architecture
    vocabulary: int
    """Rows of its embedding."""
    source: str
    """What the shape was read from: a library, with its version, or a file."""
    biases: bool = False
    """Queries, keys and values have biases, which recipes cannot say."""

    @property
    def parameters(self) -> int:
        """All of them."""
        return parameter_count(self.architecture, self.vocabulary).total + self.bias

    @property
    def bias(self) -> int:
        """Parameters beside those that the architecture counts."""
        if not self.biases:
            return 0
        shape = self.architecture
        head = shape.head_dim or shape.hidden // shape.heads
        return shape.layers * head * (shape.heads + 2 * (shape.kv_heads or shape.heads))


def shape_of(path: str, gguf: str | None = None) -> Shape | None:
    """The shape of a model; None: not known here.

    Args:
        path: a directory in Hugging Face's format, or a hub id, in upper or lower case.
        gguf: the file of the directory that holds the model, where it is one: such a file is not read.
    """
    folder = Path(path)
    return (_shape_in(folder) if gguf is None else None) if folder.is_dir() else _bundled(path)


def parameters_of(source: HuggingFaceSource | ModelSource) -> int | None:
    """All parameters of a teacher; None: its shape is unknown."""
    if isinstance(source, HuggingFaceSource) and (shape := shape_of(source.path, source.gguf_file)):
        return shape.parameters
    return parameter_count(source.architecture, source.vocabulary).total if source.architecture else None


def _bundled(path: str) -> Shape | None:
    found = BUNDLED.get(_ALIASES.get(path.lower(), path.lower()))
    if found is None:
        return None
    (family, hidden, ffn, layers, heads, kv_heads, head_dim), vocabulary, tied, biases, source = found
    architecture = Architecture(
        family="qwen3" if family == "qwen3" else "llama3",
        hidden=hidden,
        ffn=ffn,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        tied_embeddings=tied,
    )
    return Shape(architecture, vocabulary, source, biases)


def _shape_in(folder: Path) -> Shape | None:
    """What `config.json` says; None where it says anything that recipes cannot, such as experts or other biases."""
    try:
        config = read_object(folder / CONFIG, "")
    except EnvironmentFault:  # the capture says so
        return None
    kind = _KINDS.get(str(config.get("model_type")))
    if kind is None or config.get("mlp_bias") or bool(config.get("attention_bias", kind.biases)) != kind.biases:
        return None
    heads = config.get("num_attention_heads")
    fields: dict[str, Any] = {
        "family": kind.family,
        "hidden": config.get("hidden_size"),
        "ffn": config.get("intermediate_size"),
        "layers": config.get("num_hidden_layers"),
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or kind.head_dim,
        "tied_embeddings": config.get("tie_word_embeddings", kind.tied),
    }
    vocabulary = config.get("vocab_size")
    try:
        architecture = Architecture(**fields)
    except ValidationError:
        return None
    return Shape(architecture, vocabulary, f"its {CONFIG}", kind.biases) if isinstance(vocabulary, int) else None


class _Kind(NamedTuple):
    """What models of a type have where `config.json` does not say."""

    family: str = "llama3"
    biases: bool = False
    """As of `Shape`."""
    head_dim: int | None = None
    tied: bool = False


_KINDS = {
    "llama": _Kind(),
    "mistral": _Kind(),
    "qwen2": _Kind(biases=True),
    "qwen3": _Kind("qwen3", head_dim=128),
    "glm": _Kind(biases=True, head_dim=128),
    "smollm3": _Kind(tied=True),
}
"""By transformers' `model_type`: those whose blocks are counted as ours are (a test builds one of each)."""

_Row = tuple[tuple[str, int, int, int, int, int, int | None], int, bool, bool, str]
BUNDLED: dict[str, _Row] = {
    "zai-org/glm-4-9b-hf": (("llama3", 4096, 13696, 40, 32, 2, None), 151_552, False, True, TRANSFORMERS),
    "meta-llama/llama-2-7b-hf": (("llama3", 4096, 11008, 32, 32, 32, None), 32_000, False, False, TRANSFORMERS),
    "mistralai/mistral-7b-v0.1": (("llama3", 4096, 14336, 32, 32, 8, None), 32_000, False, False, TRANSFORMERS),
    "huggingfacetb/smollm3-3b": (("llama3", 2048, 11008, 36, 16, 4, None), 128_256, True, False, TRANSFORMERS),
    "meta-llama/llama-3.2-1b": (("llama3", 2048, 8192, 16, 32, 8, None), 128_256, True, False, TORCHTITAN),
    "meta-llama/llama-3.2-3b": (("llama3", 3072, 8192, 28, 24, 8, None), 128_256, True, False, TORCHTITAN),
    "meta-llama/llama-3.1-8b": (("llama3", 4096, 14336, 32, 32, 8, None), 128_256, False, False, TORCHTITAN),
    "meta-llama/llama-3.1-70b": (("llama3", 8192, 28672, 80, 64, 8, None), 128_256, False, False, TORCHTITAN),
    "meta-llama/llama-3.1-405b": (("llama3", 16384, 53248, 126, 128, 8, None), 128_256, False, False, TORCHTITAN),
    "qwen/qwen3-0.6b": (("qwen3", 1024, 3072, 28, 16, 8, 128), 151_936, True, False, TORCHTITAN),
    "qwen/qwen3-1.7b": (("qwen3", 2048, 6144, 28, 16, 8, 128), 151_936, True, False, TORCHTITAN),
    "qwen/qwen3-4b": (("qwen3", 2560, 9728, 36, 32, 8, 128), 151_936, True, False, TORCHTITAN),
    "qwen/qwen3-8b": (("qwen3", 4096, 12288, 36, 32, 8, 128), 151_936, False, False, TORCHTITAN),
    "qwen/qwen3-14b": (("qwen3", 5120, 17408, 40, 40, 8, 128), 151_936, False, False, TORCHTITAN),
    "qwen/qwen3-32b": (("qwen3", 5120, 25600, 64, 64, 8, 128), 151_936, False, False, TORCHTITAN),
}
"""By hub id in lower case: (family, hidden, ffn, layers, heads, kv_heads, head_dim), vocabulary, tied embeddings,
biases, source."""

_ALIASES = {
    "zai-org/glm-4-9b": "zai-org/glm-4-9b-hf",
    "zai-org/glm-4-9b-chat": "zai-org/glm-4-9b-hf",
    "zai-org/glm-4-9b-chat-hf": "zai-org/glm-4-9b-hf",
    "thudm/glm-4-9b": "zai-org/glm-4-9b-hf",
    "thudm/glm-4-9b-hf": "zai-org/glm-4-9b-hf",
    "thudm/glm-4-9b-chat": "zai-org/glm-4-9b-hf",
    "thudm/glm-4-9b-chat-hf": "zai-org/glm-4-9b-hf",
    "meta-llama/meta-llama-3-8b": "meta-llama/llama-3.1-8b",
    "meta-llama/meta-llama-3-70b": "meta-llama/llama-3.1-70b",
    **{f"qwen/qwen3-{size}-base": f"qwen/qwen3-{size}" for size in ("0.6b", "1.7b", "4b", "8b", "14b")},
}
