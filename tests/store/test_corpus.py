"""Documents of a corpus: which, in what order, and what is said about those that cannot be read."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import sys
import zipfile

import fsspec
import pytest
import zstandard
from pydantic import TypeAdapter

from pdforge.errors import EnvironmentFault, StoreError
from pdforge.recipe.models import Corpus, JsonLinesCorpus, MixtureCorpus, StandardLibraryCorpus, TextCorpus
from pdforge.store import corpus_files
from pdforge.store.corpus import documents, sources, units
from pdforge.store.corpus_files import fingerprint


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
    (tmp_path / "cut.jsonl.xz").write_bytes(lzma.compress(rows("a" * 999))[:-12])
    (tmp_path / "no.jsonl.xz").write_bytes(b"no xz at all")
    (tmp_path / "no.jsonl.lzma").write_bytes(b"no lzma at all")
    (tmp_path / "no.txt.zip").write_bytes(b"no zip at all")
    with zipfile.ZipFile(tmp_path / "bent.txt.zip", "w") as archive:
        archive.writestr("text", "a" * 999)
    bent = bytearray((tmp_path / "bent.txt.zip").read_bytes())
    bent[500] ^= 255
    (tmp_path / "bent.txt.zip").write_bytes(bent)
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
        (jsonl(tmp_path / "cut.jsonl.xz"), "cannot be read"),
        (jsonl(tmp_path / "no.jsonl.xz"), "cannot be read"),
        (jsonl(tmp_path / "no.jsonl.lzma"), "cannot be read"),
        (text(tmp_path / "no.txt.zip"), "cannot be read"),
        (text(tmp_path / "bent.txt.zip"), "cannot be read"),
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


# --- Parquet, data sets, mixtures, many files ------------------------------------------------------------------------


def parquet_file(path, texts, column="text"):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({column: texts, "n": list(range(len(texts)))}), path, row_group_size=2)


def of_kind(kind, path, **options):
    return [TypeAdapter(Corpus).validate_python({"kind": kind, "path": str(path), **options})]


def test_parquet_files_local_and_remote(tmp_path):
    parquet_file(tmp_path / "a.parquet", ["one", " ", "two", "three"], "body")
    parquet_file(tmp_path / "b.parquet", ["four"], "body")
    assert list(documents(of_kind("parquet", tmp_path / "*.parquet", text="body"))) == ["one", "two", "three", "four"]
    fsspec.filesystem("memory").pipe_file("/far/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert list(documents(of_kind("parquet", "memory://far/*.parquet", text="body"))) == ["one", "two", "three"]


def test_parquet_files_that_are_none(tmp_path):
    parquet_file(tmp_path / "a.parquet", ["one", None])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 or not")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    for name, options, message in (
        ("a", {"text": "body"}, r"a\.parquet: no column 'body'"),
        ("a", {}, r"a\.parquet, row 2: 'text' is not text"),
        ("no", {}, r"no\.parquet: not Parquet"),
        ("cut", {}, r"cut\.parquet: not Parquet"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            list(documents(of_kind("parquet", tmp_path / f"{name}.parquet", **options)))
        assert caught.value.remedy


@pytest.mark.parametrize(("kind", "package"), [("parquet", "pyarrow"), ("huggingface", "datasets")])
def test_without_the_package_that_reads_them(tmp_path, monkeypatch, kind, package):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentFault, match=package) as caught:
        list(documents(of_kind(kind, tmp_path / "a.parquet")))
    assert "pip install 'pdforge[data]'" in caught.value.remedy


def test_data_sets_in_a_local_folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, texts in (("train-0", ["one", "two"]), ("train-1", ["three"]), ("test", ["held out"])):
        (tmp_path / f"{name}.jsonl").write_bytes(rows(*texts))
    corpus = of_kind("huggingface", tmp_path)
    assert list(documents(corpus)) == ["one", "two", "three"]
    assert [list(unit()) for unit in units(corpus)] == [["one", "two"], ["three"]]
    before = fingerprint(corpus)
    assert before == fingerprint(corpus)
    assert fingerprint(of_kind("huggingface", tmp_path, split="test")) != before
    (tmp_path / "train-1.jsonl").write_bytes(rows("Three"))
    assert fingerprint(corpus) != before
    for options, error, message in (
        ({"split": "none"}, EnvironmentFault, "cannot be read: Bad split"),
        ({"name": "none"}, EnvironmentFault, "cannot be read"),
        ({"text": "body"}, StoreError, r"train\), piece 0: no column 'body'"),
    ):
        with pytest.raises(error, match=message):
            list(documents(of_kind("huggingface", tmp_path, **options)))
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        list(documents(of_kind("huggingface", tmp_path / "nowhere")))


def test_mixtures_have_shares_and_count_in_the_fingerprint(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(rows("one"))
    (tmp_path / "b.jsonl").write_bytes(rows("two"))

    def mixture(*weights):
        parts = [{"corpus": jsonl(tmp_path / f"{n}.jsonl")[0], "weight": w} for n, w in zip("ab", weights, strict=True)]
        return [MixtureCorpus(kind="mixture", sources=parts)]

    assert [source.share for source in sources(mixture(3, 1))] == [0.75, 0.25]
    assert [list(source.documents()) for source in sources(mixture(3, 1))] == [["one"], ["two"]]
    assert list(documents(mixture(3, 1))) == ["one", "two"]
    assert fingerprint(mixture(3, 1)) != fingerprint(mixture(1, 1))
    assert fingerprint(mixture(3, 1)) == fingerprint(mixture(3, 1))


def test_units_are_files_and_small_files_go_together(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "_UNIT_BYTES", 100)
    for number, size in enumerate([10, 10, 95, 200, 5]):
        (tmp_path / f"{number}.txt").write_text(str(number) * size)
    found = [list(unit()) for unit in units(text(tmp_path / "*.txt"))]
    assert [[one[0] for one in unit] for unit in found] == [["0", "1", "2"], ["3"], ["4"]]
    assert [one for unit in found for one in unit] == list(documents(text(tmp_path / "*.txt")))


def test_fingerprint_of_a_large_corpus_reads_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "HASHED_WHOLE", 1 << 20)
    path = tmp_path / "a.txt"
    size = 8 << 20
    data = bytearray(b"x" * size)

    def of(content):
        path.write_bytes(content)
        return fingerprint(text(path))

    whole = of(data)
    assert of(data) == whole
    assert of(data + b"x") != whole
    for place in (0, size - 1, (size - (1 << 16)) * 7 // 15 + 5):
        changed = bytearray(data)
        changed[place] = 0
        assert of(changed) != whole
    changed = bytearray(data)
    changed[100_000] = 0  # between two samples
    assert of(changed) == whole
