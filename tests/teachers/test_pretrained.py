"""Models from the hub: a small one on this machine, and what is said where it has something else, or is not there."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from pdforge.errors import EnvironmentFault
from pdforge.pretrained import model_folder, require_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "evil.py": b"code", "tokenizer.json": b"{}"}


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for: one repository with one commit."""

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:4] == ["api", "models", "some", "gated"]:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif parts[:2] == ["api", "models"] and parts[2:4] != ["some", "model"]:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif parts[:2] == ["api", "models"] and parts[5] not in ("v1", "main", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif parts[:2] == ["api", "models"] and parts[4] == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            self._answer(200, json.dumps(tree).encode(), {})
        elif parts[:2] == ["api", "models"]:
            siblings = [{"rfilename": name} for name in FILES]
            self._answer(200, json.dumps({"id": "some/model", "sha": COMMIT, "siblings": siblings}).encode(), {})
        else:  # some/model/resolve/REVISION/FILE
            content = FILES[parts[4]]
            named = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._answer(200, content, named)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _use(monkeypatch, server.server_address[1], tmp_path / "cache")
    yield server
    server.shutdown()
    server.server_close()


def _use(monkeypatch: pytest.MonkeyPatch, port: int, cache: Path) -> None:
    whole = huggingface_hub.snapshot_download

    def download(*arguments: object, **options: object) -> str:
        return str(whole(*arguments, **options, cache_dir=cache, endpoint=f"http://127.0.0.1:{port}"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_a_revision_is_fetched_without_code_and_serves_without_a_network(
    hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = model_folder("some/model", "v1", "teacher.model")
    assert {file.name for file in folder.iterdir()} == set(FILES) - {"evil.py"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    with_code = model_folder("some/model", "v1", "teacher.model", code=True)
    assert (with_code / "evil.py").exists()
    hub.shutdown()
    hub.server_close()
    assert model_folder("some/model", "v1", "teacher.model") == folder


@pytest.mark.parametrize(
    ("repository", "revision", "words"),
    [
        ("some/model", "v2", "teacher.model: the hub's repository some/model has no revision v2"),
        ("some/other", None, "the hub has no repository some/other, or it is private"),
        ("some/gated", None, "some/gated is gated"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: ThreadingHTTPServer, repository: str, revision: str | None, words: str
) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        model_folder(repository, revision, "teacher.model")
    assert words in str(caught.value)
    assert caught.value.remedy


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _use(monkeypatch, 9, tmp_path / "cache")
    with pytest.raises(EnvironmentFault) as caught:
        model_folder("some/model", "v1", "teacher.model")
    assert "some/model at revision v1 is not in the hub's cache, and the hub cannot be reached" in str(caught.value)
    assert "hf download some/model --revision v1" in caught.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"no .*config\.json"):
        require_files(tmp_path, "teacher.model.path")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(EnvironmentFault, match=r"no .*model\.safetensors") as caught:
        require_files(tmp_path, "teacher.model.path")
    assert "saved as safetensors" in caught.value.remedy
    (tmp_path / "a.gguf").write_text("")
    with pytest.raises(EnvironmentFault, match=r"no .*b\.gguf") as caught:
        require_files(tmp_path, "teacher.model.path", gguf="b.gguf")
    assert "a.gguf" in caught.value.remedy
