"""What a person wrote in a profile: the declared state of one server and its models.

llmctl never rewrites a profile. The defaults live here and nowhere else: core/schema.py reads them for
validation, the JSON Schema and the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Require = Literal["full", "partial", "none"]
FlashAttention = Literal["auto", "on", "off"]
KvCache = Literal["f16", "q8_0", "q4_0"]


@dataclass(frozen=True)
class EngineSpec:
    """Which server program. `version` None means any that is new enough."""

    kind: Literal["ollama"] = "ollama"
    version: str | None = None


@dataclass(frozen=True)
class ServerSpec:
    """Settings of the whole server. `context` is tokens per slot, `parallel` the number of slots.

    `address_given`: the profile itself names host or port, and so wins over OLLAMA_HOST.
    """

    host: str = "127.0.0.1"
    port: int = 11434
    context: int = 8192
    parallel: int = 1
    kv_cache: KvCache = "f16"
    flash_attention: FlashAttention = "auto"
    max_loaded: int = 1
    address_given: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """One model. `source` is "registry", "starter", or the path of a GGUF file.

    `fallback` "starter": where the registry cannot be reached, the packaged starter model serves instead.
    `context` None means the server's. `quantization` is what `general.file_type` of the GGUF must say.
    """

    name: str
    source: str = "registry"
    fallback: Literal["starter"] | None = None
    context: int | None = None
    resident: bool = True
    quantization: str = "Q4_K_M"


@dataclass(frozen=True)
class GpuSpec:
    """Where the models must lie. `reserve_bytes` stays free on each device; `devices` are engine indices."""

    require: Require = "full"
    reserve_bytes: int = 1024 * 1024**2
    devices: Literal["all"] | tuple[int, ...] = "all"


@dataclass(frozen=True)
class GatewaySpec:
    """Where `llmctl serve` listens."""

    host: str = "127.0.0.1"
    port: int = 3000


@dataclass(frozen=True)
class Profile:
    """A whole valid profile. `path` is absolute, None when it was not read from a file.

    `private`: own model store, and a free port of its own unless `server.address_given`.
    """

    name: str
    models: tuple[ModelSpec, ...]
    path: str | None = None
    shipped: bool = False
    private: bool = False
    description: str = ""
    engine: EngineSpec = EngineSpec()
    server: ServerSpec = ServerSpec()
    gpu: GpuSpec = GpuSpec()
    gateway: GatewaySpec = GatewaySpec()

    @property
    def reference(self) -> str:
        """What names this profile again: the shipped name, else the file."""
        return self.name if self.shipped or self.path is None else self.path

    @property
    def partial(self) -> Profile:
        """The same, content with a part of a model on the GPU where it asked for all of it."""
        return self if self.gpu.require != "full" else replace(self, gpu=replace(self.gpu, require="partial"))

    @property
    def resident(self) -> tuple[ModelSpec, ...]:
        """The models that `up` loads and keeps."""
        return tuple(model for model in self.models if model.resident)
