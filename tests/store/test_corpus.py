"""Documents of a corpus: which, in what order, and what is said about those that cannot be read."""

from __future__ import annotations

import gzip
import json
import shutil

import fsspec
import pytest
import zstandard

from pdforge.errors import EnvironmentFault, StoreError
from pdforge.recipe.models import JsonLinesCorpus, StandardLibraryCorpus, TextCorpus
from pdforge.store.corpus import documents, fingerprint


def rows(*texts, key="text"):
    return "".join(json.dumps({key: text, "other": 1}) + "\n" for text in texts).encode()


def jsonl(path, **options):
    return [JsonLinesCorpus(kind="jsonl", path=str(path), **options)]


def text(path):
    return [TextCorpus(kind="text", path=str(path))]


def test_json_lines_plain_and_compressed_in_the_order_of_names(tmp_path):
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows("three", "four")))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(rows("five")) + zstandard.compress(rows("six")))
    (tmp_path / "a.jsonl").write_bytes(rows("one") + b"\n  \n" + rows("", " \n", "two ü"))
    assert list(documents(jsonl(tmp_path / "*.jsonl*"))) == ["one", "two ü", "three", "four", "five", "six"]


def test_several_corpora_follow_each_other(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "a.jsonl").write_bytes(rows("row", key="body"))
    both = [*jsonl(tmp_path / "a.jsonl", text="body"), *text(tmp_path / "a.txt")]
    assert list(documents(both)) == ["row", "plain"]


def test_remote_files():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/corpus/a.jsonl", rows("far"))
    memory.pipe_file("/corpus/b.jsonl", rows("away"))
    corpus = jsonl("memory://corpus/*.jsonl")
    assert list(documents(corpus)) == ["far", "away"]
    before = fingerprint(corpus)
    assert before == fingerprint(corpus)
    memory.pipe_file("/corpus/b.jsonl", rows("away!"))
    assert fingerprint(corpus) != before


def test_half_a_surrogate_pair_becomes_a_replacement(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert list(documents(jsonl(tmp_path / "a.jsonl"))) == ["a\ufffdb \U0001f600"]


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [
        (rows("fine") + b'{"text": }\n', "a.jsonl:2", "not JSON"),
        (b"\n\n[1]\n", "a.jsonl:3", "not a JSON object"),
        (rows("x", key="body"), "a.jsonl:1", "no key 'text'"),
        (b'{"text": 5}\n', "a.jsonl:1", "'text' is not text"),
        (b'{"text": "\xff"}\n', "a.jsonl:1", "not JSON"),
        (b"[" * 100_000 + b"\n", "a.jsonl:1", "not JSON"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, place, what):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        list(documents(jsonl(tmp_path / "a.jsonl")))
    assert f"{tmp_path / place}: {what}" in caught.value.message
    assert caught.value.remedy


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(rows("a" * 999))[:-12])
    (tmp_path / "no.jsonl.gz").write_bytes(b"no gzip at all")
    squeezed = zstandard.compress(rows("a" * 999, *map(str, range(9999))))
    (tmp_path / "cut.jsonl.zst").write_bytes(squeezed[: len(squeezed) // 2])
    (tmp_path / "no.jsonl.zst").write_bytes(b"no zstd at all")
    bent = bytearray(gzip.compress(rows("abc" * 999)))
    bent[20] ^= 255
    (tmp_path / "bent.jsonl.gz").write_bytes(bent)
    (tmp_path / "latin.txt").write_bytes("a\nb\nstra\xdfe".encode("latin-1"))
    for corpus, message in (
        (jsonl(tmp_path / "none-*.jsonl"), "no such file"),
        (jsonl(tmp_path / "none.jsonl"), "no such file"),
        (jsonl(tmp_path / "cut.jsonl.gz"), "cannot be read"),
        (jsonl(tmp_path / "no.jsonl.gz"), "cannot be read"),
        (jsonl(tmp_path / "cut.jsonl.zst"), "cannot be read"),
        (jsonl(tmp_path / "no.jsonl.zst"), "cannot be read"),
        (text("nowhere://bucket/x"), "nowhere"),
        (text(tmp_path), "no such file"),
    ):
        with pytest.raises(EnvironmentFault, match=message):
            list(documents(corpus))
    with pytest.raises((EnvironmentFault, StoreError), match=r"bent\.jsonl\.gz"):
        list(documents(jsonl(tmp_path / "bent.jsonl.gz")))
    with pytest.raises(StoreError, match=r"latin\.txt:3: not UTF-8"):
        list(documents(text(tmp_path / "latin.txt")))


def test_fingerprint_follows_content_and_names_not_the_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text("first")
        (tmp_path / name / "sub" / "b.txt").write_text("second")

    def of(name):
        return fingerprint(text(tmp_path / name / "**" / "*.txt"))

    start = of("one")
    assert start == of("two")
    assert fingerprint(text(tmp_path / "one" / "a.txt")) != start
    (tmp_path / "two" / "a.txt").write_text("First")
    assert of("two") != start
    shutil.move(tmp_path / "one" / "a.txt", tmp_path / "one" / "z.txt")
    assert of("one") != start
    assert fingerprint(jsonl(tmp_path / "one" / "z.txt")) != fingerprint(text(tmp_path / "one" / "z.txt"))


def test_standard_library():
    small = [StandardLibraryCorpus(kind="python-stdlib", bytes=200_000)]
    found = list(documents(small))
    size = sum(len(document.encode()) for document in found)
    assert 200_000 <= size < 2_000_000
    assert found == list(documents(small))
    more = list(documents([StandardLibraryCorpus(kind="python-stdlib", bytes=2_000_000)]))
    assert more[: len(found)] == found
    assert len(more) > len(found)
    assert fingerprint(small) == fingerprint(small)
