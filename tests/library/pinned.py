"""A small model store with its lock, made by hand, and llmctl run over it as a person types it."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.cli import main
from llmctl.core.model import ModelRef, alias_for
from llmctl.core.pin import WEIGHTS_MEDIA_TYPE, Layer, Lock, Pin
from llmctl.env import Env
from llmctl.library import lock_file
from llmctl.system.hashing import sha256_of
from llmctl.system.store import Store
from tests.registry_server import CONFIG_TYPE, MANIFEST_TYPE, digest_of

TEMPLATE_TYPE = "application/vnd.ollama.image.template"


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.out or self.err.splitlines()[-1])["error"])


@dataclass
class Pinned:
    """`add` puts models into the store and the lock; calling it runs llmctl, against `url` where a server is meant."""

    folder: Path
    url: str
    store: Store
    lock: Lock = field(default_factory=Lock)
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def lock_path(self) -> Path:
        return self.folder / "profile.lock"

    def __call__(self, *words: str, given: bool = True) -> Ran:
        stdin, stdout, stderr = io.StringIO(), io.StringIO(), io.StringIO()
        environ = {**os.environ, "OLLAMA_HOST": self.url, "LLMCTL_CONFIG_DIR": str(self.folder), **self.environ}
        store = ["--store", str(self.store.path)] if given else []
        code = main([*words, *store], Env(environ, stdin, stdout, stderr))
        return Ran(code, stdout.getvalue(), stderr.getvalue())

    def add(
        self, name: str, weights: bytes | Path, template: str = "{{ .Prompt }}", host: str = "registry.ollama.ai"
    ) -> Pin:
        """A pinned registry model of these bytes, under its plain name and its alias."""
        ref = ModelRef.parse(f"{host}/library/{name}")
        layers = tuple(self.blob(kind, content) for kind, content in layers_of(weights, template))
        config = self.blob(CONFIG_TYPE, json.dumps({"file_type": "Q4_K_M", "name": name}).encode())
        content = manifest_of(config, layers)
        pin = Pin(
            name=str(ref),
            served=str(ref),
            source="registry",
            registry=host,
            manifest_digest=digest_of(content),
            config=config,
            layers=layers,
            weights_digest=layers[0].digest,
            quantization="Q4_K_M",
            file_type=15,
            parameters=1,
            alias=alias_for(ref, digest_of(content)),
            engine="0.34.0",
            pinned_at="2026-01-01T00:00:00+00:00",
            from_=f"https://{host}/v2/library/{ref.model}/manifests/{ref.tag}",
        )
        for each in (ref, ModelRef.parse(pin.alias)):
            self.store.write_manifest(each, content)
        self.pin(pin)
        return pin

    def pin(self, pin: Pin) -> None:
        self.lock = self.lock.with_pin(pin)
        lock_file.write(self.lock_path, self.lock)

    def blob(self, media_type: str, content: bytes | Path) -> Layer:
        """The content as a blob; a file becomes one by being moved."""
        if isinstance(content, Path):
            hashed = sha256_of(content)
            self.store.place(content, hashed.digest)
            return Layer(media_type, hashed.digest, hashed.size_bytes)
        digest = digest_of(content)
        if not self.store.blob(digest).exists():
            temporary = self.store.make_scratch() / "new"
            temporary.write_bytes(content)
            self.store.place(temporary, digest)
        return Layer(media_type, digest, len(content))

    def path(self, digest: str) -> Path:
        return self.store.blob(digest)


def layers_of(weights: bytes | Path, template: str) -> list[tuple[str, bytes | Path]]:
    return [(WEIGHTS_MEDIA_TYPE, weights), (TEMPLATE_TYPE, template.encode())]


def manifest_of(config: Layer, layers: tuple[Layer, ...]) -> bytes:
    def entry(layer: Layer) -> dict[str, object]:
        return {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size_bytes}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": entry(config),
        "layers": [entry(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def tree(folder: Path) -> dict[str, tuple[str, float]]:
    """Every file below, with the hash and the time of its bytes: what "nothing was changed" compares."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
