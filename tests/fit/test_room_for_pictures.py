"""A model for pictures needs the room that is kept free for its projector, and takes it from what comes after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl.core.memory.decide import Card, Host
from llmctl.core.profile import GpuSpec, ModelSpec, Profile
from llmctl.system import gguf_file
from llmctl.workflows import fit
from llmctl.workflows.gather.fit import judged

MIB, GIB = 1 << 20, 1 << 30
PROJECTOR = 800 * MIB


def test_what_doctor_says_a_model_for_pictures_needs(
    monkeypatch: pytest.MonkeyPatch, shapes: dict[str, Path], tmp_path: Path
) -> None:
    plain = fit.Source("m", gguf_file.header(shapes["llama-3.2-1b"]))
    spec = ModelSpec("m")
    profile = Profile("mine", (spec,), gpu=GpuSpec("full"))
    machine = fit.Machine((Card("RTX", 24 * GIB, 24 * GIB),), Host(32 * GIB, 30 * GIB))
    given = SimpleNamespace(environ={})

    def looked_at(source: fit.Source) -> tuple[int, int]:
        """Bytes that are needed, and those that are left on the card."""
        monkeypatch.setattr(fit, "find_spec", lambda *_, **__: source)
        found, rest = judged(profile, spec, tmp_path, machine, given)  # type: ignore[arg-type]
        assert found.verdict == "full"
        assert found.needed_bytes is not None
        return found.needed_bytes, rest.cards[0].free_bytes

    needed, left = looked_at(plain)
    assert looked_at(replace(plain, projector_bytes=PROJECTOR)) == (needed + PROJECTOR, left - PROJECTOR)
