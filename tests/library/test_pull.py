"""Pinned means pinned: a real engine pulls real weights from a registry that moves, fails and fills the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.core.pin import Lock
from llmctl.errors import DiskFull, DownloadFailed, LlmctlError, NotFound, Refused, UsageError
from tests.conftest import StartOllama
from tests.library.conftest import STARTER_DIGEST, Desk
from tests.registry_server import Registry, digest_of

pytestmark = pytest.mark.real("ollama", "model")


def test_pull_pins_every_layer_and_serves_from_the_alias(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    pinned = desk.ensure(name)
    manifest = published.manifests["m/q4_K_M"]
    pin = pinned.pin
    assert pin.manifest_digest == digest_of(manifest)
    assert pin.weights_digest == STARTER_DIGEST
    assert (pin.quantization, pin.file_type, pin.parameters) == ("Q4_K_M", 15, 268_098_176)
    assert {layer.digest for layer in pin.layers} | {pin.config and pin.config.digest} == set(published.blobs)
    assert pinned.changed
    host = published.host.replace(":", "_-")
    assert pinned.alias == f"llmctl/{host}_.library_.m_-q4__K__M:{digest_of(manifest)[7:19]}"
    assert desk.tags() == {name: pinned.served_digest, pinned.alias: pinned.served_digest}
    assert pinned.served_digest in pinned.digests
    assert [question for question in desk.told.questions if "253 MB" in question]
    moving = [step for step in desk.told.steps if step.total]
    assert moving
    assert moving[-1].completed == moving[-1].total
    answer = desk.server.post(
        "/api/generate", {"model": pinned.alias, "prompt": "Paris", "options": {"num_predict": 1}}
    )
    assert answer["done"]


def test_what_is_pinned_and_there_is_asked_of_nobody(desk: Desk, published: Registry) -> None:
    first = desk.ensure(published.name("m:q4_K_M"))
    published.asked.clear()
    second = desk.ensure(published.name("m:q4_K_M"))
    assert not second.changed
    assert second.pin == first.pin
    assert published.asked == []
    assert desk.told.questions == []


def test_a_lost_alias_comes_back_without_the_registry(desk: Desk, published: Registry) -> None:
    first = desk.ensure(published.name("m:q4_K_M"))
    desk.client.delete(first.alias)
    published.asked.clear()
    again = desk.ensure(published.name("m:q4_K_M"))
    assert again.changed
    assert again.pin == first.pin
    assert first.alias in desk.tags()
    assert published.asked == []


def test_an_alias_that_someone_changed_is_made_right(desk: Desk, published: Registry) -> None:
    first = desk.ensure(published.name("m:q4_K_M"))
    list(desk.client.create(first.alias, from_=first.pin.served, template="changed {{ .Prompt }}"))
    assert desk.tags()[first.alias] != first.served_digest
    again = desk.ensure(published.name("m:q4_K_M"))
    assert again.changed
    assert desk.tags()[first.alias] == first.served_digest


def test_another_context_gets_an_alias_of_its_own_over_the_same_weights(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    plain = desk.ensure(name)
    other = desk.ensure(name, context=1024)
    assert other.alias == f"{plain.alias}-c1024"
    assert other.pin == plain.pin
    assert desk.tags()[other.alias] == other.served_digest
    assert "num_ctx" in desk.client.show(other.alias)["parameters"]
    # The template of the registry's model stays.
    assert desk.client.show(other.alias)["template"] == "{{ .Prompt }}"
    assert not desk.ensure(name, context=1024).changed
    # Also where the store cannot be read, and the weights are known from /api/show alone.
    assert not desk.ensure(name, context=1024, store=False).changed


def test_a_moved_tag_is_refused_with_both_digests_and_taken_when_asked(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    name = published.name("m:q4_K_M")
    first = desk.ensure(name)
    moved = published.add("m:q4_K_M", starter_gguf, STARTER_DIGEST, template="other {{ .Prompt }}")
    # While the pinned weights are there, a moved tag is nobody's business.
    assert not desk.ensure(name).changed
    for model in desk.tags():
        desk.client.delete(model)
    with pytest.raises(Refused) as caught:
        desk.ensure(name)
    assert caught.value.exit_code == 5
    assert caught.value.code == "drift"
    assert first.pin.manifest_digest[7:19] in caught.value.message
    assert moved[7:19] in caught.value.message
    assert caught.value.hint == f"llmctl pull {name} --update"
    updated = desk.ensure(name, update=True)
    assert updated.pin.manifest_digest == moved
    assert updated.alias != first.alias
    # Nothing new a second time: nothing is done, and the lock stays as it is.
    again = desk.ensure(name, update=True)
    assert not again.changed
    assert again.pin == updated.pin


def test_a_plain_name_that_was_pulled_anew_does_not_change_what_is_served(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    name = published.name("m:q4_K_M")
    first = desk.ensure(name)
    published.add("m:q4_K_M", starter_gguf, STARTER_DIGEST, template="other {{ .Prompt }}")
    list(desk.client.pull(name, insecure=True))
    assert desk.tags()[name] != first.served_digest
    again = desk.ensure(name)
    assert not again.changed
    assert desk.tags()[again.alias] == first.served_digest


def test_another_quantization_is_refused_before_the_download(
    desk: Desk, registry: Registry, starter_gguf: Path
) -> None:
    registry.add("m:q8", starter_gguf, STARTER_DIGEST, file_type="Q8_0")
    with pytest.raises(Refused) as caught:
        desk.ensure(registry.name("m:q8"))
    assert caught.value.code == "quantization"
    assert "Q8_0" in caught.value.message
    assert "Q4_K_M" in caught.value.message
    assert desk.tags() == {}
    assert not [line for line in registry.asked if STARTER_DIGEST in line]


def test_the_gguf_is_believed_not_the_tag_nor_the_config(desk: Desk, registry: Registry, starter_gguf: Path) -> None:
    registry.add("m:q8_0", starter_gguf, STARTER_DIGEST, file_type="Q8_0")
    # Asked for as Q8_0, and the config says so too: only the weights know better.
    for store in (True, False):
        with pytest.raises(Refused) as caught:
            desk.ensure(registry.name("m:q8_0"), quantization="Q8_0", store=store)
        assert "is Q4_K_M (" in caught.value.message
        assert "27 Q4_K" in caught.value.message
        assert "81 Q5_0" in caught.value.message
    assert desk.lock == Lock()


@pytest.mark.parametrize(
    ("fault", "error"), [("missing", NotFound), ("login", DownloadFailed), ("too_old", DownloadFailed)]
)
def test_a_registry_that_says_no_is_not_covered_up_by_the_starter(
    desk: Desk, published: Registry, fault: str, error: type[LlmctlError]
) -> None:
    published.fault = fault  # type: ignore[assignment]
    with pytest.raises(error):
        desk.ensure(published.name("m:q4_K_M"), fallback="starter")
    assert desk.tags() == {}


def test_pinned_weights_are_not_replaced_when_the_registry_is_away(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    desk.ensure(name)
    for model in desk.tags():
        desk.client.delete(model)
    published.fault = "page"
    with pytest.raises(DownloadFailed):
        desk.ensure(name, fallback="starter")
    assert desk.tags() == {}


def test_an_installed_model_is_pinned_as_it_is_when_the_registry_is_away(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    list(desk.client.pull(name, insecure=True))
    published.fault = "page"
    pinned = desk.ensure(name)
    assert pinned.pin.manifest_digest == digest_of(published.manifests["m/q4_K_M"])
    assert "as it is installed" in pinned.note


def test_what_is_installed_and_current_is_pinned_without_a_download(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    list(desk.client.pull(name, insecure=True))
    published.asked.clear()
    assert desk.ensure(name).changed
    assert desk.told.questions == []
    assert not [line for line in published.asked if "/blobs/" in line]


def test_a_pull_that_breaks_off_is_an_error_and_the_next_one_goes_on(
    desk: Desk, published: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = published.name("m:q4_K_M")
    stop = threading.Event()

    def leave(_: object) -> None:
        if len(desk.told.steps) > 30:
            stop.set()
            raise KeyboardInterrupt

    published.redirects = True
    published.blob_fault = "stall"
    monkeypatch.setattr(
        "llmctl.library.obtain.Obtain.tell", lambda run, *args: (desk.told.steps.append(args), leave(run))
    )  # type: ignore[arg-type,func-returns-value]
    with pytest.raises(KeyboardInterrupt):
        desk.ensure(name)
    monkeypatch.undo()
    assert stop.is_set()
    assert desk.tags() == {}
    assert desk.lock == Lock()
    published.blob_fault = None
    published.released.set()
    assert desk.ensure(name).pin.weights_digest == STARTER_DIGEST


def test_damaged_weights_do_not_count_as_pulled(
    desk: Desk, registry: Registry, starter_gguf: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.gguf"
    content = bytearray(starter_gguf.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    registry.add("m:q4_K_M", damaged, STARTER_DIGEST)
    with pytest.raises(DownloadFailed, match="digest mismatch"):
        desk.ensure(registry.name("m:q4_K_M"))
    assert desk.tags() == {}


@pytest.mark.real("tmpfs")
def test_a_store_without_room_is_refused_before_anything_is_written(
    ollama_server: StartOllama, desk: Desk, published: Registry, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(200 << 20)
    desk.server = ollama_server(models=folder / "models")
    with pytest.raises(DiskFull) as caught:
        desk.ensure(published.name("m:q4_K_M"))
    assert "MiB" in caught.value.message
    assert desk.told.questions == []
    assert not list((folder / "models").rglob("sha256-*"))


@pytest.mark.real("tmpfs")
def test_a_disk_that_fills_up_during_the_pull_is_named(
    ollama_server: StartOllama, desk: Desk, published: Registry, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(120 << 20)
    desk.server = ollama_server(models=folder / "models")
    # As where the store is another machine's: the room is not known before.
    with pytest.raises(DiskFull) as caught:
        desk.ensure(published.name("m:q4_K_M"), store=False)
    assert "disk is full" in caught.value.message
    assert desk.tags() == {}
    assert desk.lock == Lock()


def test_two_pulls_at_once_end_in_one_model(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    other = Desk(desk.server, desk.paths)
    ends: list[object] = []

    def ensure(each: Desk) -> None:
        try:
            ends.append(each.ensure(name).alias)
        except BaseException as error:
            ends.append(error)

    threads = [threading.Thread(target=ensure, args=(each,)) for each in (desk, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends[0] == ends[1]
    assert set(desk.tags()) == {name, str(ends[0])}
    whole = [line for line in published.asked if STARTER_DIGEST in line and "bytes=0-" in line]
    assert len(whole) == 1


def test_names_that_are_not_for_this_machine(desk: Desk) -> None:
    for name, said in (
        ("gpt-oss:120b-cloud", "ollama.com"),
        ("llmctl/m:0123456789ab", "own aliases"),
        ("a b", "'a b'"),
    ):
        with pytest.raises(UsageError, match=said):
            desk.ensure(name)


def test_a_profile_that_asks_for_something_else_than_was_pinned(desk: Desk, published: Registry) -> None:
    name = published.name("m:q4_K_M")
    desk.ensure(name)
    with pytest.raises(Refused, match="asks for Q8_0"):
        desk.ensure(name, quantization="Q8_0")
    with pytest.raises(Refused, match="source is starter"):
        desk.ensure(name, source="starter")


def test_a_name_in_another_case_is_the_same_model(desk: Desk, published: Registry) -> None:
    list(desk.client.pull(published.name("m:q4_K_M"), insecure=True))
    published.manifests["M/q4_K_M"] = published.manifests["m/q4_K_M"]
    pinned = desk.ensure(published.name("M:q4_K_M"))
    assert pinned.pin.weights_digest == STARTER_DIGEST
    assert not desk.ensure(published.name("M:q4_K_M")).changed


def test_a_tag_that_moves_between_the_question_and_the_pull_is_not_pinned(
    desk: Desk, published: Registry, starter_gguf: Path
) -> None:
    asked = published.manifests["m/q4_K_M"]
    published.add("m:q4_K_M", starter_gguf, STARTER_DIGEST, template="other {{ .Prompt }}")
    published.moves["m/q4_K_M"], published.manifests["m/q4_K_M"] = published.manifests["m/q4_K_M"], asked
    with pytest.raises(Refused, match="moved while it was pulled"):
        desk.ensure(published.name("m:q4_K_M"))
    assert desk.lock == Lock()
