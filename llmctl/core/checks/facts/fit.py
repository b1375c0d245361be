"""Whether the resident models that do not lie where they should would fit into the memory that is free now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """One way out, as `fit` computes it."""

    words: str
    command: str


@dataclass(frozen=True)
class ModelFit:
    """One model. `verdict`: full, partial, no, or unknown. `needed_bytes` is of all of it, with the margin that must
    stay free; `free_bytes` on all devices together, what the server's own runners hold counted as free.

    `gpu` False: it is for host memory. `problem` says why nothing could be computed.
    """

    name: str
    verdict: str
    gpu: bool = True
    context: int = 0
    needed_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    layers_on_gpu: int | None = None
    layers: int = 0
    ways: tuple[Way, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class FitFacts:
    """`models` are only those that are not proved to lie where the profile wants them; empty where all are. Where no
    server runs, all are asked about.

    `smaller`: where all are proved and the log tells of memory that ran out, how they would need less. `residuals`: by
    model, predicted and measured bytes of the last loads of its weights with this engine and driver.
    """

    models: tuple[ModelFit, ...] = ()
    smaller: tuple[Way, ...] = ()
    residuals: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
