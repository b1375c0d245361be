"""install-service and uninstall-service on a real systemd."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmctl.core import unit
from tests.parts.engine import InstalledEngine
from tests.parts.rpc import RpcGpu
from tests.parts.systemd import Container
from tests.service.conftest import ENGINE, STARTER_STORE, Ask
from tests.service.installing import ENGINE_UNIT, GUARD_UNIT, TARGET, Service, rpc_server, service

pytestmark = pytest.mark.real("systemd", "ollama")

PLACES = (
    *(f"/etc/systemd/system/{name}" for name in (*unit.UNITS, f"multi-user.target.wants/{TARGET}")),
    "/etc/sysusers.d/llmctl.conf",
    "/opt/llmctl",
    "/run/llmctl",
    "/var/cache/llmctl",
    "/var/lib/llmctl/engines",
)


def there(container: Container, *paths: str) -> list[str]:
    return [path for path in paths if container.run("test", "-e", path, check=False).returncode == 0]


def is_user(container: Container) -> bool:
    return container.run("id", "llmctl", check=False).returncode == 0


def test_installed_and_removed_twice(container: Container) -> None:
    made = service(container)
    # A mask that lets nobody else read would hide the profile from the service.
    first = container.run(
        *("sh", "-c", 'umask 077; exec llmctl install-service --profile "$1" --yes --json', "sh", made.profile()),
        environ={"LLMCTL_ENGINE": str(ENGINE / "bin/ollama")},
    )
    assert json.loads(first.stdout)["changed"]
    assert there(container, *PLACES) == list(PLACES)
    container.wait(lambda: made.llmctl("status").code == 0, 60, "the server's answer")
    assert container.run("systemd-analyze", "verify", *UNIT_PATHS).stderr == ""
    for name in (ENGINE_UNIT, GUARD_UNIT):
        said = container.run("systemd-analyze", "security", "--no-pager", name).stdout.splitlines()[-1]
        exposure = float(re.search(r": ([0-9.]+)", said)[1])  # type: ignore[index]
        print(f"exposure of {name}: {exposure}")
        assert exposure <= 2.5

    again = made.install()
    assert not again.json["changed"]
    assert not [step for step in again.json["steps"] if step["due"]]

    assert made.llmctl("uninstall-service", "--json").json["changed"]
    assert there(container, *PLACES) == []
    assert not container.pids(ENGINE_UNIT)
    # What a person may want again stays, and so does whom it belongs to.
    assert len(there(container, "/etc/llmctl/profile.yaml", "/var/lib/llmctl/models")) == 2
    assert is_user(container)
    assert not made.llmctl("uninstall-service", "--json").json["changed"]

    assert made.llmctl("uninstall-service", "--purge", "--json").code == 2
    assert made.llmctl("uninstall-service", "--purge", "--yes").code == 0
    assert there(container, "/etc/llmctl", "/var/lib/llmctl") == []
    assert not is_user(container)


UNIT_PATHS = tuple(f"/etc/systemd/system/{name}" for name in unit.UNITS)


@pytest.mark.real("model", "rpc")
def test_a_pinned_model_answers_from_the_gpu_after_kill_and_boot(
    container: Container, rpc_gpu: RpcGpu, ask: Ask
) -> None:
    made = service(container)
    made.add_to_engine("[Service]", *(f"Environment={name}={value}" for name, value in rpc_gpu.environ.items()))
    assert made.install(profile=made.profile(require="full")).code == 0
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err
    assert up.json["owner"] == "systemd"
    assert up.json["models"][0]["place"] == "gpu"
    assert container.unit(GUARD_UNIT)["ActiveState"] == "active"

    (pid,) = container.pids(ENGINE_UNIT, "ollama")
    container.signal(pid, signal.SIGKILL)
    container.wait(lambda: container.pids(ENGINE_UNIT, "ollama") not in ([], [pid]), 60, "another server")
    made.await_resident()

    container.reboot()
    made.await_resident()
    (loaded,) = ask(made.port, "/api/ps")["models"]
    assert loaded["size_vram"] == loaded["size"] > 0
    (entry,) = made.llmctl("status", "--json").json["models"]
    assert (entry["verdict"], entry["place"]) == ("proved", "gpu")


@pytest.mark.real("rpc")
def test_a_gpu_that_comes_late_delays_no_boot(container: Container, engine: InstalledEngine, tmp_path: Path) -> None:
    made = service(container)
    late = made.port + 1
    made.add_to_engine("[Service]", f"Environment=LLAMA_ARG_RPC=127.0.0.1:{late}")
    assert made.install(profile=made.profile(require="full")).code == 0
    container.poweroff()
    with ThreadPoolExecutor(1) as pool:
        # To systemd the boot has ended when no unit is being started any more.
        booted = pool.submit(container.boot, 120)
        container.wait(lambda: container.init, 30, "an init")
        reached = "systemctl is-active multi-user.target || systemctl is-failed multi-user.target"
        container.wait(lambda: container.run("sh", "-c", reached, check=False).returncode == 0, 30, "the target")
        waits = "the engine names no GPU yet"
        container.wait(lambda: waits in str(container.journal(ENGINE_UNIT)), 30, "word of what it waits for")
        assert container.unit("multi-user.target")["ActiveState"] == "active"
        assert container.unit(ENGINE_UNIT)["ActiveState"] == "activating"
        gpu = rpc_server(engine.rpc_server, late, tmp_path)
        try:
            container.wait(lambda: container.unit(ENGINE_UNIT)["ActiveState"] == "active", 60, "the engine to start")
            assert container.unit(ENGINE_UNIT)["NRestarts"] == "0"
        finally:
            gpu.kill()
            gpu.wait()
            container.run("systemctl", "stop", TARGET)
        booted.result()


def test_what_dies_again_and_again_ends_as_failed(container: Container) -> None:
    made = service(container)
    made.add_to_engine("[Unit]", "StartLimitBurst=4", "[Service]", "ExecStart=", "ExecStart=/bin/false")
    assert made.install().code == 0
    container.wait(lambda: container.unit(ENGINE_UNIT)["ActiveState"] == "failed", 60, "the limit")
    assert container.unit(ENGINE_UNIT)["NRestarts"] == "4"
    up = made.llmctl("up", "--json")
    assert up.code == 1
    assert ENGINE_UNIT in up.error["message"]


def test_a_secret_goes_by_credential(container: Container) -> None:
    made = service(container)
    secret = "http://me:geheim@127.0.0.1:9"
    assert made.install(environ={"HTTPS_PROXY": secret}).code == 0
    container.wait(lambda: made.llmctl("status").code == 0, 60, "the server's answer")
    assert "geheim" not in container.run("systemctl", "show", ENGINE_UNIT).stdout
    assert container.run("grep", "-r", "geheim", "/etc/systemd", "/run/systemd/system", check=False).stdout == ""
    mode = container.run("stat", "--format=%a %U", "/etc/llmctl/credentials/HTTPS_PROXY").stdout.split()
    assert mode == ["600", "root"]


@pytest.mark.real("model")
@pytest.mark.parametrize("way", ["copy", "move"])
def test_models_come_along(container: Container, way: str) -> None:
    """Ann had it in her own store, pinned; the service gets copies that she cannot write."""
    made = service(container)
    container.run("useradd", "--create-home", "ann")
    profile = made.profile("/home/ann/my.yaml")
    container.run("chown", "-R", "ann:ann", "/home/ann")
    assert made.llmctl("up", profile, "--yes", user="ann").code == 0
    taken = made.install(profile=profile, environ={"SUDO_USER": "ann"})
    assert (taken.code, taken.error["hint"]) == (1, "llmctl down")
    assert made.llmctl("down", user="ann").code == 0
    done = made.install("--import-models", way, profile=profile, environ={"SUDO_USER": "ann"})
    assert done.code == 0, done.err
    assert done.json["notes"] == []
    blobs = container.run(
        "sh", "-c", 'stat --format="%n %U %h %a" "$1"/*', "sh", "/var/lib/llmctl/models/blobs"
    ).stdout.splitlines()
    assert len(blobs) > 1
    for name, *facts in map(str.split, blobs):
        assert facts == ["llmctl", "1", "644"], name
    kept = container.run("sh", "-c", "find /home/ann -name 'sha256-*' -size +1M").stdout.split()
    assert len(kept) == (0 if way == "move" else 1)
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err


FOREIGN = f"""\
[Unit]
Description=Ollama Service
[Service]
ExecStart={ENGINE}/bin/ollama serve
User=ollama
Group=ollama
Restart=always
Environment=HOME=/var/lib/ollama
Environment=OLLAMA_MODELS=/var/lib/ollama/models
Environment=OLLAMA_HOST=127.0.0.1:{{port}}
[Install]
WantedBy=multi-user.target
"""


def install_ollama(made: Service) -> None:
    """As its installer leaves it."""
    container = made.container
    container.run("useradd", "--system", "--create-home", "--home-dir", "/var/lib/ollama", "ollama")
    container.run("cp", "-r", STARTER_STORE, "/var/lib/ollama/models")
    container.run("chown", "-R", "ollama:ollama", "/var/lib/ollama")
    container.write("/etc/systemd/system/ollama.service", FOREIGN.format(port=made.port))
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "enable", "--now", "ollama.service")


@pytest.mark.real("model")
def test_ollamas_own_unit_is_adopted_or_left_alone(container: Container, ask: Ask) -> None:
    made = service(container)
    install_ollama(made)
    container.wait(lambda: ask(made.port, "/api/version"), 30, "Ollama's answer")
    before = container.read("/etc/systemd/system/ollama.service")
    refused = made.install()
    assert (refused.code, refused.error["code"]) == (5, "foreign_unit")
    for word in ("same port", "memory of the GPU", "two stores"):
        assert word in refused.error["message"]
    assert "--adopt" in refused.error["hint"]
    assert there(container, *PLACES) == []

    adopted = made.install("--adopt")
    assert adopted.code == 0, adopted.err
    drop_in = "/etc/systemd/system/ollama.service.d/llmctl.conf"
    assert 'Environment="OLLAMA_KEEP_ALIVE=-1"' in container.read(drop_in)
    assert container.read("/etc/systemd/system/ollama.service") == before
    assert there(container, f"/etc/systemd/system/{ENGINE_UNIT}") == []
    assert not made.install("--adopt").json["changed"]
    # Its installer writes the unit anew.
    install = container.run(
        "sh", "-c", "cat > /etc/systemd/system/ollama.service; systemctl daemon-reload", stdin=before
    )
    assert install.returncode == 0
    assert "OLLAMA_KEEP_ALIVE=-1" in container.unit("ollama.service")["Environment"]
    up = made.llmctl("up", "--json")
    assert up.code == 0, up.err
    assert up.json["owner"] == "foreign"
    container.wait(lambda: container.unit(GUARD_UNIT)["ActiveState"] == "active", 60, "the guard")

    assert made.llmctl("uninstall-service").code == 0
    assert there(container, drop_in, str(Path(drop_in).parent), *PLACES) == []
    assert ask(made.port, "/api/version")


MODPROBE = """\
#!/bin/sh
echo "modprobe $*" >> /run/modprobe.log
grep --no-filename --line-regexp ollama /proc/[0-9]*/comm >> /run/modprobe.log
exit 0
"""


def test_root_resets_nvidia_uvm_when_asked(container: Container) -> None:
    """The real module needs hardware; the order of what root does is seen here."""
    made = service(container)
    container.write("/usr/sbin/modprobe", MODPROBE, "0755")
    assert made.install("--reset-uvm").code == 0
    container.wait(lambda: made.llmctl("status").code == 0, 60, "the server's answer")
    (before,) = container.pids(ENGINE_UNIT, "ollama")
    container.run("touch", "/run/llmctl/reset-uvm", user="llmctl")
    container.wait(lambda: not there(container, "/run/llmctl/reset-uvm"), 30, "root's answer")
    container.wait(lambda: container.pids(ENGINE_UNIT, "ollama") not in ([], [before]), 60, "another server")
    # Nothing held the module while it went.
    assert container.read("/run/modprobe.log").splitlines() == [
        "modprobe --remove nvidia_uvm",
        "modprobe nvidia_uvm",
    ]
    assert made.install().json["changed"]
    assert there(container, f"/etc/systemd/system/{unit.UVM}", f"/etc/systemd/system/{unit.UVM_PATH}") == []
    assert "--reset-uvm" not in container.unit(GUARD_UNIT)["ExecStart"]
