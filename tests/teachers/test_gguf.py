"""The tokenizer of a GGUF file cuts text as the file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from pdforge.errors import EnvironmentFault
from pdforge.gguf import tokenizer_of

gguf = pytest.importorskip("gguf")

TEXT = "It's 2024: 1,234 files, don't  panic.\n\n\tdef f(x): return x**10  # ünïcode 北京\n"


def written(path: Path, pre: str, model: str = "gpt2") -> Path:
    """A GGUF file with a byte-level tokenizer that has merged `12`, `20`, `don` and `fi`, and two special tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = ["1 2", "2 0", "d o", "do n", "f i", "Ġ f", "Ġ d"]
    tokens = ["<|endoftext|>", "<|user|>", *alphabet, *(merge.replace(" ", "") for merge in merges)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 4, *([1] * (len(tokens) - 2))])
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_every_text_comes_back(tmp_path: Path, pre: str) -> None:
    model = tokenizers.Tokenizer.from_str(tokenizer_of(written(tmp_path / "m.gguf", pre), "place").decode())
    ids = model.encode(TEXT).ids
    assert model.decode(ids) == TEXT
    assert model.token_to_id("<|endoftext|>") == 0
    assert model.encode("a<|user|>b").tokens == ["a", "<|user|>", "b"]


def test_digits_stand_alone_where_the_file_says_so(tmp_path: Path) -> None:
    tokens = {
        pre: tokenizers.Tokenizer.from_str(tokenizer_of(written(tmp_path / pre, pre), "place").decode())
        .encode("120")
        .tokens
        for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")
    }
    assert tokens == {
        "gpt-2": ["12", "0"],
        "smollm": ["1", "2", "0"],
        "llama-bpe": ["12", "0"],
        "qwen2": ["1", "2", "0"],
    }


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cuts text as 'nobodys'"):
        tokenizer_of(written(tmp_path / "a.gguf", "nobodys"), "place")
    with pytest.raises(EnvironmentFault, match="of the kind 'llama'"):
        tokenizer_of(written(tmp_path / "b.gguf", "default", model="llama"), "place")
    (tmp_path / "c.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(EnvironmentFault, match=r"cannot read .*c\.gguf as a GGUF file"):
        tokenizer_of(tmp_path / "c.gguf", "place")
