"""Stores with tiny pinned models, archives made by hand, and llmctl as it is typed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import main
from llmctl.core.manifest import MEDIA_TYPE, parse_manifest
from llmctl.core.model import ModelRef, alias_for
from llmctl.core.pin import Lock, Pin
from llmctl.env import Env
from llmctl.library import lock_file
from llmctl.system.store import Store
from tests.memory import gguf_bytes as made
from tests.parts import machine

NAME = "models.example:5000/team/tiny:q4_K_M"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MODEL_TYPE = "application/vnd.ollama.image.model"
LICENCE_TYPE = "application/vnd.ollama.image.license"
PROFILE = "schema: 1\nserver: {{host: 127.0.0.1, port: {port}}}\nmodels:\n  - name: m\ngpu: {{require: none}}\n"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True)
class Tiny:
    """A model of a few KiB: its manifest's bytes and its blobs by digest."""

    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def weights(self) -> str:
        found = parse_manifest(self.manifest).weights
        assert found is not None
        return found.digest


def tiny(extra: bytes = b"", *, licence: bytes | None = b"Do as you like.\n", weights: bytes | None = None) -> Tiny:
    """A model whose GGUF ends in `extra`: other bytes are another model."""
    blobs: dict[str, bytes] = {}

    def layer(media_type: str, content: bytes) -> dict[str, object]:
        blobs[digest_of(content)] = content
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    config = layer(CONFIG_TYPE, json.dumps({"model_format": "gguf", "file_type": "Q4_K_M"}).encode())
    layers = [layer(MODEL_TYPE, weights if weights is not None else made.small() + extra)]
    layers += [layer(LICENCE_TYPE, licence)] if licence is not None else []
    document = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": config, "layers": layers}
    return Tiny(json.dumps(document, separators=(",", ":")).encode(), blobs)


def pin_for(model: Tiny, name: str = NAME, **changed: Any) -> Pin:
    manifest, ref = parse_manifest(model.manifest), ModelRef.parse(name)
    fields: dict[str, Any] = {
        "name": name,
        "served": str(ref),
        "source": "registry",
        "registry": ref.host,
        "manifest_digest": model.digest,
        "config": manifest.config,
        "layers": manifest.layers,
        "weights_digest": model.weights,
        "quantization": "Q4_K_M",
        "file_type": 15,
        "parameters": 520,
        "alias": alias_for(ref, model.digest),
        "engine": "0.34.0",
        "pinned_at": "2026-01-02T03:04:05+00:00",
        "from_": f"https://{ref.host}/v2",
    }
    return Pin(**{**fields, **changed})


def fill(store: Store, model: Tiny, *names: str) -> None:
    """Put a model into a store by hand."""
    store.blobs_folder.mkdir(parents=True, exist_ok=True)
    for digest, content in model.blobs.items():
        store.blob(digest).write_bytes(content)
    for name in names:
        store.write_manifest(ModelRef.parse(name), model.manifest)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """What is on stderr, or in the document of a refusal that has one."""
        return (json.loads(self.out) if self.out else json.loads(self.err.splitlines()[-1]))["error"]


@dataclass
class Box:
    """One machine: a store, a profile and its lock. `box("export", …)` is a command line there, without a terminal."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.folder / "models")

    @property
    def lock_path(self) -> Path:
        return self.folder / "config" / "profile.lock"

    @property
    def lock(self) -> Lock:
        return lock_file.read(self.lock_path)

    @property
    def settings(self) -> dict[str, str]:
        given = {"LLMCTL_CONFIG_DIR": str(self.folder / "config"), "OLLAMA_MODELS": str(self.store.path)}
        return {**os.environ, **given, **self.environ}

    def __call__(self, *words: str) -> Ran:
        stdin, stdout, stderr = io.StringIO(), io.StringIO(), io.StringIO()
        code = main(list(words), Env(self.settings, stdin, stdout, stderr))
        return Ran(code, stdout.getvalue(), stderr.getvalue())

    def use(self, port: int) -> None:
        """The profile's server is the one at this port of loopback."""
        (self.folder / "config" / "profile.yaml").write_text(PROFILE.format(port=port))

    def pin(self, model: Tiny, name: str = NAME, **changed: Any) -> Pin:
        """Have a model, pinned, under its alias."""
        pin = pin_for(model, name, **changed)
        fill(self.store, model, pin.alias)
        lock_file.change(self.lock_path, lambda lock: lock.with_pin(pin))
        return pin

    def files(self) -> dict[str, bytes]:
        """Every file of the store, by its path in it."""
        root = self.store.path
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


NewBox = Callable[..., Box]


@pytest.fixture
def new_box(tmp_path: Path) -> NewBox:
    def make(name: str, **environ: str) -> Box:
        folder = tmp_path / name
        (folder / "config").mkdir(parents=True)
        (folder / "models").mkdir()
        box = Box(folder, environ)
        box.use(machine.free_port())
        return box

    return make


@pytest.fixture
def here(new_box: NewBox) -> Box:
    return new_box("here")


@pytest.fixture
def there(new_box: NewBox) -> Box:
    return new_box("there")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive.tar"


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """A plain tar with these members in this order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def members_of(path: Path) -> dict[str, bytes]:
    """What Python's own reader finds in an archive."""
    with tarfile.open(path, "r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
