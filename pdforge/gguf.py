"""The tokenizer of a GGUF file, by the file's own rules.

transformers' conversion of a byte-level tokenizer leaves out what the file says of cutting text into words
(`tokenizer.ggml.pre`): SmolLM2's, for one, takes every digit by itself. A teacher that reads ids it was not trained on
is another teacher.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from pdforge.errors import EnvironmentFault

_SPECIAL = {2, 3}
"""`tokenizer.ggml.token_type`: unknown, control."""
_USER_DEFINED = 4

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2 = {**_BYTES, "use_regex": True}


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _llama3(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_DIGITS = {"type": "Digits", "individual_digits": True}
_CUTS: dict[str, list[dict[str, Any]]] = {
    **{name: [_GPT2] for name in ("default", "gpt-2", "olmo", "phi-2")},
    **{name: [_DIGITS, _GPT2] for name in ("smollm", "starcoder", "refact", "command-r", "exaone")},
    "llama-bpe": [_split(_llama3(r"\p{N}{1,3}")), _BYTES],
    "qwen2": [_split(_llama3(r"\p{N}")), _BYTES],
}
"""By `tokenizer.ggml.pre`, how text is cut before merging; llama.cpp's rules (`llama-vocab.cpp`)."""


def tokenizer_of(file: Path, place: str) -> bytes:
    """`tokenizer.json` of the tokenizer in a GGUF file.

    Args:
        file: the GGUF file.
        place: the recipe's field, for messages.

    Raises:
        EnvironmentFault: it is no GGUF file, its tokenizer is of another kind, or the `gguf` package is missing.
    """
    fields = _fields(file, place)
    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in _CUTS:
        raise EnvironmentFault(
            f"{place}: {file} has a tokenizer of the kind {kind!r} that cuts text as {cut!r}, which this version does "
            "not read",
            remedy=f"read are byte-level ones that cut as {', '.join(_CUTS)}; else name a tokenizer.json",
        )
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    cuts = _CUTS[cut]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind in _SPECIAL,
            }
            for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in _SPECIAL or kind == _USER_DEFINED
        ],
        "normalizer": None,
        "pre_tokenizer": cuts[0] if len(cuts) == 1 else {"type": "Sequence", "pretokenizers": cuts},
        "post_processor": None,
        "decoder": _GPT2,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": cut == "llama-bpe",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]],
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False).encode()


def _fields(file: Path, place: str) -> dict[str, Any]:
    """The tokenizer's entries of the file's header."""
    try:
        reader = importlib.import_module("gguf").GGUFReader(file)
    except ImportError as error:
        raise EnvironmentFault("the `gguf` package is missing", remedy="pip install 'pdforge[hf]'") from error
    except Exception as error:  # the library raises whatever numpy meets in a damaged header
        raise EnvironmentFault(
            f"{place}: cannot read {file} as a GGUF file: {type(error).__name__}: {error}",
            remedy="fetch the file again",
        ) from error
    return {name: part.contents() for name, part in reader.fields.items() if name.startswith("tokenizer.")}
