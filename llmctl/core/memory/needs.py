"""What one model takes on each device, under changing settings and placements. Each graph is emulated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.memory import ollama
from llmctl.core.memory.cache import cache_known, kv_bytes, state_bytes
from llmctl.core.memory.compute import Compute, compute_buffers
from llmctl.core.memory.settings import Placement, Settings
from llmctl.core.memory.shape import Shape
from llmctl.core.memory.weights import Weights


@dataclass(frozen=True)
class Needs:
    """Bytes by device, 0 the host. None where they cannot be told. `refused` says why llama.cpp would not start."""

    weights: Mapping[int, int] | None
    kv: Mapping[int, int] | None
    state: Mapping[int, int] | None
    compute: Mapping[int, int] | None
    compute_exactness: str
    refused: str | None = None

    def total(self, device: int) -> int | None:
        parts = (self.weights, self.kv, self.state, self.compute)
        known = [part.get(device, 0) for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def known(self, device: int) -> int:
        """What is known of it: a lower bound where something is not."""
        parts = (self.weights, self.kv, self.state, self.compute)
        return sum(part.get(device, 0) for part in parts if part is not None)


class Model:
    """A model whose needs are asked for again and again. `evaluations` counts emulated graphs."""

    def __init__(self, shape: Shape, file_bytes: int, projector_bytes: int = 0) -> None:
        self.shape = shape
        self.file_bytes = file_bytes
        self._projector_bytes = projector_bytes
        self.evaluations = 0
        self._weights: dict[str, Weights] = {}
        self._compute: dict[tuple[Settings, Placement], Compute] = {}

    def as_other(self, shape: Shape, file_bytes: int) -> Model:
        """The same model with other tensors."""
        return Model(shape, file_bytes, self._projector_bytes)

    def weights(self, backend: str) -> Weights:
        if backend not in self._weights:
            self._weights[backend] = Weights(self.shape, backend)
        return self._weights[backend]

    def projector_bytes(self, backend: str) -> int:
        """What Ollama loads beside the model for pictures or sound: its own file, else what stands in the model's."""
        if self._projector_bytes or not ollama.reads_projector_inside(self.shape):
            return self._projector_bytes
        return self.weights(backend).projector_bytes

    def compute(self, settings: Settings, placement: Placement) -> Compute:
        key = (settings, placement)
        if key not in self._compute:
            self.evaluations += 1
            self._compute[key] = compute_buffers(self.shape, settings, placement)
        return self._compute[key]

    def needs(self, settings: Settings, placement: Placement) -> Needs:
        compute = self.compute(settings, placement)
        known = cache_known(self.shape)
        return Needs(
            self.weights(settings.backend).on(placement),
            kv_bytes(self.shape, settings, placement) if known else None,
            state_bytes(self.shape, settings, placement) if known else None,
            None if compute.exactness == "unknown" else compute.bytes,
            compute.exactness,
            compute.refused,
        )
