"""Conversations in a token store: exactly the answers carry loss, whatever the template, and wherever they are cut.

The tokenizer of most tests has a token for each byte, and answers are in capitals: the label itself says whether it is
part of an answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pdforge.chat import ChatTemplate
from pdforge.errors import StoreError, UsageError
from pdforge.recipe.chat_format import ChatFormat
from pdforge.recipe.models import JsonLinesCorpus, ParquetCorpus, PretrainedTokenizer, StandardLibraryCorpus
from pdforge.recipe.models import TrainedTokenizer as Trained
from pdforge.store.chat_encoder import ChatEncoder
from pdforge.store.corpus import units
from pdforge.store.encoder import SEPARATOR, tokenizer_json
from pdforge.store.inspect import verify
from pdforge.store.mixture import Mixture
from pdforge.store.tokenize import build_token_store
from pdforge.store.tokens import LEARNT, TokenStore

pytest.importorskip("tokenizers")
from tokenizers import Tokenizer

LENGTH = 24
CAPITALS = "ABCDEFGH"
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHAT = ChatFormat(template=TEMPLATE, bos=SEPARATOR, eos=SEPARATOR)
BYTES = Trained(kind="trained", vocabulary=257)


def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    told = [{"role": "system", "content": system}] if system else []
    return told + [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


def conversations(number: int) -> list[list[dict[str, str]]]:
    """Of 1 to 3 answers, with and without a system prompt, from shorter than a sequence to several sequences long."""
    rng = np.random.default_rng(number)
    made = []
    for n in range(number):
        words = ["".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(2 * rng.integers(1, 4))]
        made.append(turns(*(w.upper() if i % 2 else w for i, w in enumerate(words)), system=f"s{n}" * (n % 2)))
    return made


def rows_file(folder: Path, rows: list[Any], key: str = "messages") -> Path:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({key: row}) + "\n" for row in rows))
    return path


def build(output: Path, path: Path, **changes: Any) -> TokenStore:
    tokenizer = output.parent / "bytes.json"
    tokenizer.write_bytes(tokenizer_json(BYTES, []))
    options = {
        "corpus": [JsonLinesCorpus(kind="jsonl", path=str(path), text="messages")],
        "tokenizer": PretrainedTokenizer(path=str(tokenizer)),
        "sequence_length": LENGTH,
        "train_sequences": 200,
        "validation_sequences": 10,
        "seed": 0,
        "identity": "chats",
        "chat": CHAT,
    }
    build_token_store(output, **{**options, **changes})
    return TokenStore.open(output)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("chats")
    return build(folder / "store", rows_file(folder, conversations(150)))


def characters(store: TokenStore, ids: np.ndarray) -> list[str]:
    tokenizer = Tokenizer.from_str(store.tokenizer())
    return [tokenizer.id_to_token(int(i)) for i in ids]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_exactly_the_answers_carry_loss(store: TokenStore, split: Any) -> None:
    sequences = store.split(split)
    tokens, positions, learnt = sequences.get_labelled_batch(range(len(sequences)))
    assert learnt.any(axis=1).sum() >= 0.5 * len(sequences)
    cut = 0
    for row, marks, places in zip(tokens, learnt, positions, strict=True):
        text = characters(store, row)
        for t, character in enumerate(text[1:]):
            # an answer is in capitals and ends with the separator and a line end; a conversation starts with one too
            ends = character == SEPARATOR and text[t] in CAPITALS
            closes = character == "Ċ" and text[t] == SEPARATOR
            if t:
                assert marks[t] == (character in CAPITALS or ends or closes), (text, t)
            if places[t] == 0 and t:
                assert text[t : t + 2] == [SEPARATOR, "<"]
        cut += bool(marks[0] and text[0] in CAPITALS)
    if split == "train":
        assert cut > 10, "answers that a packing boundary cuts"


def test_every_answer_is_learnt_once(tmp_path: Path) -> None:
    """Over all sequences, each answer's tokens are labels once: packing loses none, and repeats none."""
    rows = conversations(40)
    encoder = ChatEncoder(tokenizer_json(BYTES, []), BYTES, CHAT)
    encoded = encoder.encode([json.dumps(row) for row in rows])
    total = sum(map(len, encoded))
    sequences = (total - 1) // LENGTH
    store = build(tmp_path / "s", rows_file(tmp_path, rows), train_sequences=sequences, validation_sequences=0)
    *_, learnt = store.split("train").get_labelled_batch(range(sequences))
    stream = np.concatenate(encoded)[1 : sequences * LENGTH + 1]
    assert learnt.sum() == (stream & np.uint32(LEARNT) != 0).sum()
    answers = sum(len(turn["content"]) + 2 for row in rows for turn in row if turn["role"] == "assistant")
    assert answers - LENGTH <= learnt.sum() <= answers


def test_a_separator_inside_a_conversation_starts_no_document(store: TokenStore) -> None:
    tokens, positions, _ = store.split("train").get_labelled_batch(range(200))
    inside = (tokens[:, :-1] == store.manifest.separator) & (positions > 0)
    assert inside.sum() > 50


def test_the_template_decides_and_special_tokens_in_content_are_text() -> None:
    source = tokenizer_json(BYTES, [])
    encoder = ChatEncoder(source, BYTES, CHAT)
    [ids] = encoder.encode([json.dumps(turns(f"what is {SEPARATOR}?", "A"))])
    tokenizer = Tokenizer.from_str(source.decode())
    plain = [int(i) for i in ids & np.uint32((1 << 30) - 1)]
    assert plain.count(0) == 2, "the start of the conversation and the end of the answer"
    assert tokenizer.decode(plain[1:], skip_special_tokens=False) == (
        f"<user>what is {SEPARATOR}?\n<assistant>A{SEPARATOR}\n"
    )
    assert [i for i, mark in zip(plain, ids & np.uint32(LEARNT), strict=True) if mark][:2] == [plain[-3], 0]


def test_templates_as_transformers_has_them() -> None:
    """The text is that of transformers' own renderer, and the answers those of its generation marks."""
    chat_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    template = (
        "{{ bos_token }}{%- for message in messages %}\n<|{{ message['role'] }}|>\n"
        "{%- if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}"
        "{% endgeneration %}{%- else %}{{ message['content'] | trim }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}\n<|assistant|>\n{%- endif %}"
    )
    mine = ChatTemplate(ChatFormat(template=template, bos="<s>", eos="</s>"))
    for row in conversations(20):
        rendered, marked = chat_utils.render_jinja_template(
            [row], chat_template=template, return_assistant_tokens_mask=True, bos_token="<s>", eos_token="</s>"
        )
        segments = list(mine.segments(row))
        assert "".join(segment.text for segment in segments) == rendered[0]
        answers = [segment.text for segment in segments if segment.learnt]
        assert answers == [rendered[0][start:end] for start, end in marked[0]]


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    forgetful = (
        "{% for message in messages %}{% if loop.last or message.role == 'user' %}{{ message.content }}{% endif %}"
        "{% endfor %}"
    )
    template = ChatTemplate(ChatFormat(template=forgetful, bos="", eos=""))
    assert list(template.segments(turns("a", "B")))
    with pytest.raises(UsageError, match=r"writes turn 2 of the conversation that begins 'a' otherwise") as caught:
        list(template.segments(turns("a", "B", "c", "D")))
    assert "finetune.template" in caught.value.remedy


def test_what_a_template_refuses_is_said() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}x"
    with pytest.raises(UsageError, match=r"cannot write .*: no system turn here"):
        list(ChatTemplate(ChatFormat(template=template, bos="", eos="")).segments(turns("a", "B", system="s")))


BROKEN = {
    "no assistant": ([{"role": "user", "content": "hello"}], "chats.jsonl:2: no turn of the assistant"),
    "empty answer": (turns("hello", "  "), "chats.jsonl:2: no turn of the assistant"),
    "text": ("hello", "chats.jsonl:2: 'messages' is not a list of turns"),
    "no turn": ([], "chats.jsonl:2: 'messages' is not a list of turns"),
    "no content": ([{"role": "user"}], "chats.jsonl:2: turn 1 has no 'content' that is text"),
    "parts": ([{"role": "user", "content": [{"type": "image"}]}], "chats.jsonl:2: turn 1 has no 'content'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_row_that_is_no_conversation(tmp_path: Path, name: str) -> None:
    row, message = BROKEN[name]
    path = rows_file(tmp_path, [turns("a", "B"), row])
    with pytest.raises(StoreError) as caught:
        build(tmp_path / "store", path)
    assert message in caught.value.message
    assert caught.value.remedy
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_missing_key_lists_those_there(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [turns("a", "B")], key="conversation")
    with pytest.raises(StoreError, match="no key 'messages'") as caught:
        build(tmp_path / "store", path)
    assert "conversation" in caught.value.remedy


def test_rows_of_parquet(tmp_path: Path, store: TokenStore) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"messages": conversations(150)}), tmp_path / "chats.parquet")
    corpus = [ParquetCorpus(kind="parquet", path=str(tmp_path / "chats.parquet"), text="messages")]
    same = build(tmp_path / "store", tmp_path, corpus=corpus)
    assert same.manifest.content == store.manifest.content


def test_the_store_is_whole_and_says_that_it_is_marked(store: TokenStore, tmp_path: Path) -> None:
    assert store.verify() == []
    assert store.manifest.dtype == "marked-uint32"
    assert verify(str(store._folder)) == []


def test_conversations_about_the_standard_library() -> None:
    [unit] = units([StandardLibraryCorpus(kind="python-stdlib", bytes=500_000)], conversations=True)
    found = [json.loads(text) for text in unit()]
    assert len(found) > 10
    assert {turn["role"] for row in found for turn in row} == {"system", "user", "assistant"}
    assert any(len(row) == 7 for row in found)
    assert all(row[-1]["role"] == "assistant" and row[-1]["content"] for row in found)


def test_a_mixture_holds_its_shares_at_every_moment(store: TokenStore, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"some words {n} " * 5}) + "\n" for n in range(200)))
    tokenizer = PretrainedTokenizer(path=f"{store._folder}/tokenizer.json", vocabulary=257)
    corpus = [JsonLinesCorpus(kind="jsonl", path=str(text))]
    plain = build(tmp_path / "text", text, corpus=corpus, tokenizer=tokenizer, chat=None, train_sequences=300)
    mixture = Mixture(store, plain, sequences=450, text_sequences=150, text_from=100)
    places = [mixture.place(sample) for sample in range(len(mixture))]
    assert len(mixture) == 600
    of_text = [index for split, index in places if split is not places[-1][0]]
    chats = [index for split, index in places if split is places[-1][0]]
    assert of_text == list(range(100, 250)), "each once, in order, behind what training has read"
    assert chats[:200] == list(range(200))
    assert sorted(chats[200:400]) == list(range(200)), "read again, in another order"
    assert chats[200:400] != chats[:200]
    for start in range(0, 600, 40):
        assert sum(split is places[-1][0] for split, _ in places[start : start + 40]) == 30
    tokens, positions, learnt = mixture.get_labelled_batch(range(8))
    for row, (split, index) in enumerate(places[:8]):
        expected = split.get_labelled_batch([index])
        assert all((a[row] == b[0]).all() for a, b in zip((tokens, positions, learnt), expected, strict=True))
    assert all(learnt[row].all() for row, (split, _) in enumerate(places[:8]) if split is not places[-1][0])
