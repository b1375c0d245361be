"""Headers that no converter writes: `llmctl fit` says in words what is wrong, soon, and in little memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fit.conftest import Fit
from tests.memory import gguf_bytes as gguf
from tests.memory import published

SMALL = {"llama": "llama-3.2-1b", "gemma3": "gemma-3-270m", "gpt-oss": "gpt-oss-20b", "bert": "all-minilm-l6"}
I32, BOOL, F64 = 5, 7, 12
NUMBERS = gguf.array(gguf.U32, 3, struct.pack("<3I", 1, 2, 3))
WRONG = {
    "an array": (gguf.ARRAY, NUMBERS),
    "an empty array": (gguf.ARRAY, gguf.array(gguf.U32, 0, b"")),
    "a long array": (gguf.ARRAY, gguf.array(gguf.U32, 4096, bytes(4 * 4096))),
    "texts": (gguf.ARRAY, gguf.array(gguf.STRING, 1, gguf.text("x"))),
    "a text": (gguf.STRING, gguf.text("many")),
    "zero": (gguf.U32, struct.pack("<I", 0)),
    "less than zero": (I32, struct.pack("<i", -1)),
    "the largest number": (gguf.U64, b"\xff" * 8),
    "not a number": (F64, struct.pack("<d", float("nan"))),
    "infinity": (gguf.F32, struct.pack("<f", float("inf"))),
    "yes": (BOOL, b"\1"),
}


def with_key(architecture: str, key: str, kind: int, data: bytes, path: Path) -> Path:
    """A published shape of which one key has another value."""
    model = published.MODELS[SMALL[architecture]]
    whole, size = published._laid_out(model)
    keys = published._keys(model)
    before = published._key(key, keys[key])
    assert before in whole
    header = whole.rstrip(b"\0").replace(before, gguf.key(key, kind, data), 1)
    with path.open("wb") as file:
        file.write(header)
        # Some room for the padding, which is another now.
        file.truncate(len(header) + size + 64)
    return path


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("architecture", SMALL)
def test_a_key_of_the_wrong_kind_is_never_a_traceback(architecture: str, wrong: str, tmp_path: Path, fit: Fit) -> None:
    for key in published._keys(published.MODELS[SMALL[architecture]]):
        if key.endswith("expert_used_count"):
            continue
        path = with_key(architecture, key, *WRONG[wrong], tmp_path / "wrong.gguf")
        said = fit(str(path), "--context", "2048", "--gpu", "8GiB", "--backend", "rpc")
        assert said.code in {0, 1, 5}, f"{key}: {said}"
        assert "Traceback" not in said.err
        assert said.code != 1 or "error" in said.err


@pytest.mark.parametrize("used", [0, 33, 2**32 - 1])
def test_experts_that_are_not_there_are_refused(used: int, tmp_path: Path, fit: Fit) -> None:
    """gpt-oss 20B has 32; llama.cpp loads it with 1 to 32 in use."""
    path = with_key("gpt-oss", "gpt-oss.expert_used_count", gguf.U32, struct.pack("<I", used), tmp_path / "wrong.gguf")
    said = fit(str(path), "--context", "2048", "--gpu", "8GiB", "--backend", "rpc")
    assert said.code == 1
    assert "expert_used_count" in said.err


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "context_length"])
@pytest.mark.parametrize("wrong", ["an array", "a text", "less than zero", "the largest number"])
def test_what_every_model_needs_is_named(key: str, wrong: str, tmp_path: Path, fit: Fit) -> None:
    said = fit(str(with_key("llama", f"llama.{key}", *WRONG[wrong], tmp_path / "wrong.gguf")), "--gpu", "8GiB")
    assert said.code == 1
    assert f"llama.{key}" in said.err


@pytest.mark.parametrize("wrong", ["an array", "zero", "yes"])
def test_an_architecture_that_is_no_text_is_named(wrong: str, tmp_path: Path, fit: Fit) -> None:
    said = fit(str(with_key("llama", "general.architecture", *WRONG[wrong], tmp_path / "wrong.gguf")), "--gpu", "8GiB")
    assert said.code == 1
    assert "architecture" in said.err


def overlapping() -> bytes:
    return gguf.file([], [gguf.tensor("a", (64,)), gguf.tensor("b", (64,), 0, 32)], 512)


def backwards() -> bytes:
    return gguf.file([], [gguf.tensor("a", (64,), 0, 256), gguf.tensor("b", (64,), 0, 0)], 512)


def onto_the_header() -> bytes:
    return gguf.file([], [gguf.tensor("a", (64,), 0, 2**64 - 32)], 512)


@pytest.mark.parametrize("make", [overlapping, backwards, onto_the_header])
def test_tensors_that_lie_upon_each_other_are_refused(make: Callable[[], bytes], tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(make())
    said = fit(str(path), "--gpu", "8GiB")
    assert said.code == 1
    assert "tensor" in said.err


PEAK = """
import sys
from llmctl.__main__ import main
code = main(sys.argv[1:])
# The peak since exec, in KiB; ru_maxrss would carry over that of the process that forked this one.
print(int(code), [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.parametrize("kind", ["key", "name", "array"])
def test_ten_gigabytes_of_text_are_refused_in_little_memory(kind: str, tmp_path: Path) -> None:
    """The file is a hole, and truly as long as its header says."""
    length = 10**10
    starts = {
        "key": gguf.key("a", gguf.STRING, struct.pack("<Q", length)),
        "name": struct.pack("<Q", length),
        "array": gguf.key("a", gguf.ARRAY, gguf.array(gguf.STRING, 1, struct.pack("<Q", length))),
    }
    path = tmp_path / "long.gguf"
    with path.open("wb") as file:
        file.write(gguf.file([starts[kind]], []))
        file.truncate(length + 1000)
    command = [sys.executable, "-c", PEAK, "fit", str(path), "--gpu", "8GiB"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    code, peak_kib = ran.stdout.split()
    assert code == "1"
    assert "long.gguf" in ran.stderr
    assert int(peak_kib) < 200 << 10
