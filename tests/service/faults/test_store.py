"""What is on the disk is damaged, or there is no room on it."""

from __future__ import annotations

import signal

import pytest

from tests.service.faults.served import STORE, Served, fault
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT

pytestmark = pytest.mark.real("systemd", "ollama", "model")
STATE = "/var/lib/llmctl/state"


def weights(served: Served) -> str:
    """The file of the pinned weights; other tests leave a rival's in the store, too."""
    models = served.llmctl("list", "--json").json["models"]
    (digest,) = (model["weights_digest"] for model in models if model["alias"] == served.alias)
    return f"{STORE}/blobs/{digest.replace(':', '-')}"


@fault(
    what="the weights are damaged on the disk, so that they do not load",
    how="the head of the blob overwritten, then a restart of the engine",
    happens="`load_failed`: the guard loads again, starts the engine anew once, loads again, and says `degraded`, with "
    "the engine's words, `llmctl verify` and `llmctl repair`. The repair mends the blob, and says that the engine "
    "(0.34.0) remembers what it read",
    again="`llmctl repair`, `llmctl down`, `llmctl up`",
)
def test_the_blob_is_corrupted_before_a_restart(served: Served) -> None:
    blob, container, since = weights(served), served.container, len(served.events())
    script = 'f="$1"; dd if="$f" of=/var/tmp/head bs=64K count=1; dd if=/dev/zero of="$f" bs=64K count=1 conv=notrunc'
    container.run("systemctl", "stop", ENGINE_UNIT)
    container.run("sh", "-c", script, "sh", blob)
    try:
        container.run("systemctl", "start", ENGINE_UNIT)
        served.until("word of it", lambda: "failed" in served.note.get("words", ""))
        assert not served.resident
        served.until("the guard to give up", lambda: served.note["reason"] == "load_failed" and served.note["degraded"])
        assert served.steps(since).count(("load_failed", "restart_engine")) == 1
        assert served.processes("llama-server") == {}
        for command in ("sudo llmctl verify starter", "sudo llmctl repair starter"):
            served.says(command)
        assert served.llmctl("verify", "starter").code == 5
        repaired = served.llmctl("repair", "starter", "--yes", "--json")
        assert repaired.code == 0, repaired.err
        assert repaired.json["restart_server"] is True
        assert "sudo llmctl down" in repaired.json["notes"][-1]
    finally:
        undo = 'cmp -n 65536 /var/tmp/head "$1" || dd if=/var/tmp/head of="$1" bs=64K conv=notrunc; rm /var/tmp/head'
        container.run("sh", "-c", undo, "sh", blob)
    with served.away("damaged weights", lambda: True):
        assert served.llmctl("down").code == 0
        assert served.llmctl("up").code == 0


@fault(
    what="the disk of /var is full",
    how="a small file system for the state, filled, then `kill -9` of llama-server",
    happens="the guard loads the model all the same and says once what it could not write",
    again="one look and one load",
)
def test_the_state_is_full(served: Served) -> None:
    container, before = served.container, served.runner
    mount = (
        'cp -a "$1" /var/tmp/state && mount -t tmpfs -o size=128k,mode=0755 tmpfs "$1" && cp -a /var/tmp/state/. "$1"/'
        ' && chown --reference=/var/tmp/state "$1" && ! dd if=/dev/zero of="$1"/filling bs=4k 2>/dev/null'
    )
    container.run("systemctl", "stop", GUARD_UNIT, ENGINE_UNIT)
    container.run("sh", "-c", mount, "sh", STATE)
    try:
        container.run("systemctl", "start", ENGINE_UNIT, "--no-block")
        with served.away("a full /var", lambda: served.runners not in ([], [before])):
            container.run("systemctl", "start", GUARD_UNIT, "--no-block")
        since, before = len(served.events()), served.runner
        with served.away("kill -9 of llama-server on a full /var", lambda: served.runners not in ([], [before])):
            container.signal(before, signal.SIGKILL)
        said = [event["MESSAGE"] for event in served.events(since) if "No space" in event["MESSAGE"]]
        assert len(said) <= 1
    finally:
        container.run("systemctl", "stop", GUARD_UNIT, ENGINE_UNIT)
        container.run("sh", "-c", 'umount "$1" && rm -rf /var/tmp/state', "sh", STATE)
        container.run("systemctl", "start", "--no-block", ENGINE_UNIT, GUARD_UNIT)
