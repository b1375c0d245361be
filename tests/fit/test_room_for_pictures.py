"""A model for pictures needs the room that is kept free for its projector, and takes it from what comes after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl.core.memory import shape
from llmctl.core.memory.decide import Card, Host
from llmctl.core.memory.gguf import Tensor
from llmctl.core.memory.needs import Model
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


@pytest.mark.parametrize(
    ("architecture", "tensor", "beside", "expected"),
    [
        ("gemma3", "v.patch_embd.weight", 0, 256),
        # Ollama loads no projector out of such a file, and of two only the one that has a file of its own.
        ("llama", "v.patch_embd.weight", 0, 0),
        ("gemma3", "a.conv.weight", 0, 0),
        ("gemma3", "v.patch_embd.weight", 5 * MIB, 5 * MIB),
        ("llama", "blk.0.w", 5 * MIB, 5 * MIB),
    ],
)
def test_which_projector_is_loaded(
    shapes: dict[str, Path], architecture: str, tensor: str, beside: int, expected: int
) -> None:
    """As ollama v0.34.0 llm/llama_server.go:877-895 decides; 64 values in F32."""
    plain = shape.from_gguf(gguf_file.header(shapes["llama-3.2-1b"]))
    seen = replace(plain, architecture=architecture, tensors=(*plain.tensors, Tensor(tensor, (64,), 0, 0)))
    assert Model(seen, GIB, beside).projector_bytes("cuda") == expected
