"""Where headers come from: split files, a store, a registry that behaves and registries that do not."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.system.gguf_file import header
from tests.fit.conftest import Fit
from tests.memory import gguf_bytes as gguf
from tests.memory import published
from tests.registry_server import Registry, serving

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def registry(tmp_path: Path, shapes: dict[str, Path]) -> Iterator[Registry]:
    with serving(tmp_path / "registry") as served:
        served.add("llama:1b", shapes["llama-3.2-1b"], DIGEST)
        yield served


def test_a_model_in_a_registry_is_judged_by_its_header_alone(
    fit: Fit, registry: Registry, shapes: dict[str, Path]
) -> None:
    said = fit(registry.name("llama:1b"), "--gpu", "24GiB", "--context", "4096", "--json")
    assert said.code == 0, said.err
    here = fit(str(shapes["llama-3.2-1b"]), "--gpu", "24GiB", "--context", "4096", "--json").json
    assert said.json["devices"][0] == here["devices"][0]
    ranges = [re.search(r"bytes=(\d+)-(\d+)", line) for line in registry.asked if "/blobs/" in line or "/data/" in line]
    assert all(ranges), registry.asked
    read = sum(int(found[2]) - int(found[1]) + 1 for found in ranges if found)
    assert read <= header(shapes["llama-3.2-1b"]).data_offset + (1 << 20)


def test_a_redirect_is_followed(fit: Fit, registry: Registry) -> None:
    registry.redirects = True
    assert fit(registry.name("llama:1b"), "--gpu", "24GiB", "--context", "4096", "--json").code == 0


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [("missing", 4, "model_not_found"), ("login", 1, "registry_login"), ("page", 1, "download_failed")],
)
def test_a_registry_that_refuses_is_told_apart(fit: Fit, registry: Registry, fault: str, code: int, error: str) -> None:
    registry.fault = fault  # type: ignore[assignment]
    said = fit(registry.name("llama:1b"), "--gpu", "24GiB", "--json")
    assert said.code == code
    assert said.out == ""
    assert "Traceback" not in said.err


def test_a_registry_that_cuts_the_header_short_is_an_error(fit: Fit, registry: Registry) -> None:
    registry.blob_fault = "truncated"
    said = fit(registry.name("llama:1b"), "--gpu", "24GiB", "--json")
    assert said.code == 1
    assert "Traceback" not in said.err


def test_a_registry_that_knows_no_ranges_is_told_apart(fit: Fit, registry: Registry) -> None:
    registry.blob_fault = "whole"
    said = fit(registry.name("llama:1b"), "--gpu", "24GiB", "--json")
    assert said.code == 1
    assert json.loads(said.err)["error"]["code"] == "no_range"


@pytest.mark.parametrize("where", ["manifest", "header"])
def test_a_registry_that_stops_sending_is_given_up(
    fit: Fit, registry: Registry, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # Long enough to be the end of this test where the pause itself is not what ends the wait.
    monkeypatch.setattr("llmctl.system.remote_gguf.ANSWER_SECONDS", 300.0)
    monkeypatch.setattr("llmctl.system.registry.ANSWER_SECONDS", 300.0)
    if where == "manifest":
        registry.fault = "stall"
    else:
        registry.blob_fault = "stall"
    said = fit(registry.name("llama:1b"), "--gpu", "24GiB", "--json")
    assert said.code == 1
    assert "stopped sending" in json.loads(said.err)["error"]["message"]


def test_split_files_are_read_as_one_model(tmp_path: Path, fit: Fit, shapes: dict[str, Path]) -> None:
    whole = header(shapes["llama-3.2-1b"])
    parts = split(tmp_path, shapes["llama-3.2-1b"])
    found = header(parts[1])
    assert {tensor.name for tensor in found.tensors} == {tensor.name for tensor in whole.tensors}
    one = fit(str(parts[0]), "--gpu", "24GiB", "--context", "4096", "--json").json
    other = fit(str(shapes["llama-3.2-1b"]), "--gpu", "24GiB", "--context", "4096", "--json").json
    assert one["devices"][0] == other["devices"][0]
    parts[1].unlink()
    missing = fit(str(parts[0]), "--gpu", "24GiB", "--json")
    assert missing.code == 4
    assert parts[1].name in missing.err


def split(folder: Path, source: Path) -> list[Path]:
    """The model in two files as llama-gguf-split makes them: metadata in the first, tensors in both."""
    model = published.MODELS["llama-3.2-1b"]
    infos = published._decoder(model)
    halves = [infos[: len(infos) // 2], infos[len(infos) // 2 :]]
    assert source.exists()
    paths = []
    for number, half in enumerate(halves):
        keys = [published._key(name, value) for name, value in published._keys(model).items()] if number == 0 else []
        for name, value in (("split.no", number), ("split.count", 2)):
            keys.append(gguf.key(name, 2, struct.pack("<H", value)))
        offset, tensors = 0, []
        for name, kind, shape in half:
            type_id, block, size = published._TYPES[kind]
            tensors.append(gguf.tensor(name, shape, type_id, offset))
            elements = 1
            for length in shape:
                elements *= length
            offset += -(-(elements // block * size) // 32) * 32
        path = folder / f"model-{number + 1:05}-of-00002.gguf"
        data = gguf.file(keys, tensors)
        with path.open("wb") as file:
            file.write(data)
            file.truncate(len(data) + offset)
        paths.append(path)
    return paths


def test_a_file_that_is_no_gguf_is_an_error_with_its_name(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGML" + bytes(100))
    said = fit(str(path), "--gpu", "8GiB")
    assert said.code == 1
    assert "broken.gguf" in said.err
    assert fit(str(tmp_path / "none.gguf"), "--gpu", "8GiB").code == 4


@pytest.mark.parametrize(
    "options",
    [
        ["--gpu", "much"],
        ["--kv-cache", "q9_9"],
        ["--backend", "metal"],
        ["--quantization", "Q1"],
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(fit: Fit, shapes: dict[str, Path], options: list[str]) -> None:
    assert fit(str(shapes["llama-3.2-1b"]), "--context", "4096", *options).code == 2
