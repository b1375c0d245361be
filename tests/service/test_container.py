"""The container is what the tests of the service believe it to be: a real systemd, a real engine, and its own end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import llmctl
from tests.parts import machine, rootfs
from tests.parts.namespace import remove_cgroup
from tests.parts.nvml import ScriptedGpu
from tests.parts.ollama import STARTER
from tests.parts.rpc import RpcGpu
from tests.parts.systemd import BootError, Container
from tests.service.conftest import ENGINE, SHARED, STARTER_STORE, Ask, ContainerGpu, StartContainer

pytestmark = pytest.mark.real("systemd")

UNIT = "try-ollama.service"


def install(container: Container, name: str, command: str, environ: Mapping[str, str], *more: str) -> None:
    lines = ["[Service]", f"ExecStart={command}", *(f"Environment={key}={value}" for key, value in environ.items())]
    lines += [*more, "[Install]", "WantedBy=multi-user.target"]
    container.write(f"/etc/systemd/system/{name}", "\n".join(lines) + "\n")
    container.run("systemctl", "daemon-reload")


def install_ollama(container: Container, port: int, environ: Mapping[str, str] | None = None) -> None:
    settings = {"OLLAMA_HOST": f"127.0.0.1:{port}", "HOME": "/var/lib/try-ollama", "OLLAMA_NO_CLOUD": "1"}
    own = ["DynamicUser=yes", "StateDirectory=try-ollama", "Restart=always", "RestartSec=100ms"]
    install(container, UNIT, f"{ENGINE}/bin/ollama serve", settings | dict(environ or {}), *own)


def test_llmctl_runs_as_root_and_as_anybody(container: Container) -> None:
    container.run("useradd", "--create-home", "ann")
    for user in ("root", "ann"):
        said = container.run("llmctl", "--version", user=user)
        assert said.stdout == f"llmctl {llmctl.__version__}\n"
        listed = container.run("llmctl", "list", "--json", user=user, check=False)
        assert json.loads(listed.stdout or listed.stderr.splitlines()[-1])
    assert container.run("id", "-un", user="ann").stdout == "ann\n"
    assert container.run("sh", "-c", "echo $HOME", user="ann").stdout == "/home/ann\n"


@pytest.mark.real("ollama")
def test_an_engine_is_a_unit_through_kill_and_reboot(
    container: Container, ask: Ask, free_port: Callable[[], int]
) -> None:
    port = free_port()
    install_ollama(container, port)
    container.run("systemctl", "enable", "--now", UNIT)
    container.wait(lambda: ask(port, "/api/version")["version"], 30, "the engine's answer")
    (before,) = container.pids(UNIT, "ollama")
    assert container.unit(UNIT)["NRestarts"] == "0"

    container.signal(before, signal.SIGKILL)
    container.wait(lambda: container.unit(UNIT)["NRestarts"] == "1", 30, "one restart")
    container.wait(lambda: ask(port, "/api/version"), 30, "the restarted engine's answer")
    (after,) = container.pids(UNIT, "ollama")
    assert after != before
    reasons = [entry.get("EXIT_STATUS") for entry in container.journal(UNIT)]
    assert "KILL" in reasons or "9" in reasons
    assert any("Listening on" in str(entry["MESSAGE"]) for entry in container.journal(UNIT))

    container.reboot()
    container.wait(lambda: ask(port, "/api/version"), 30, "the engine's answer after the boot")
    assert container.unit(UNIT)["NRestarts"] == "0"
    assert len({entry["_BOOT_ID"] for entry in container.journal(UNIT)}) == 2

    container.poweroff()
    with pytest.raises(OSError):
        ask(port, "/api/version")


@pytest.mark.real("ollama", "model", "rpc")
def test_a_unit_has_its_model_on_the_stand_in_gpu(
    container: Container, ask: Ask, rpc_gpu: RpcGpu, free_port: Callable[[], int]
) -> None:
    port = free_port()
    # Nobody knows the number of a DynamicUser before it runs.
    container.run("cp", "--recursive", STARTER_STORE, "/var/lib/store")
    container.run("chmod", "--recursive", "a+rwX", "/var/lib/store")
    install_ollama(container, port, {"OLLAMA_MODELS": "/var/lib/store", **rpc_gpu.environ})
    container.run("systemctl", "start", UNIT)
    container.wait(lambda: ask(port, "/api/version"), 30, "the engine's answer")
    answer = ask(port, "/api/generate", {"model": STARTER, "prompt": "Two and two", "options": {"num_predict": 4}})
    assert answer["eval_count"] > 0
    (loaded,) = ask(port, "/api/ps")["models"]
    assert loaded["size_vram"] == loaded["size"] > 0
    assert rpc_gpu.alive
    # The runner is in the unit: what stops the unit stops it too.
    assert container.pids(UNIT, "llama-server")
    container.run("systemctl", "stop", UNIT)
    assert container.pids(UNIT) == []


@pytest.mark.real("nvml")
def test_a_unit_sees_the_scripted_driver(container: Container, container_nvml: ContainerGpu) -> None:
    program = (
        "import pynvml; pynvml.nvmlInit(); gpu = pynvml.nvmlDeviceGetHandleByIndex(0);"
        "print(pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlDeviceGetTemperature(gpu, 0))"
    )
    python = rootfs.INSTALLATION / "bin/python3"
    once = ["Type=oneshot", "DynamicUser=yes"]
    install(container, "look.service", f"{python} -c '{program}'", container_nvml.environ, *once)
    for temperature in (45, 88):
        container_nvml.standin.set(ScriptedGpu(temperature=temperature))
        container.run("systemctl", "start", "look.service")
        said = [entry["MESSAGE"] for entry in container.journal("look.service")]
        assert f"NVIDIA GeForce RTX 3090 {temperature}" in said


def test_a_user_has_a_systemd_of_her_own(container: Container) -> None:
    container.add_user("ann")
    text = "[Service]\nExecStart=/bin/sleep 600\n[Install]\nWantedBy=default.target\n"
    container.write("/home/ann/.config/systemd/user/nap.service", text)
    container.run("chown", "-R", "ann:ann", "/home/ann")
    container.run("systemctl", "--user", "enable", "--now", "nap.service", user="ann")
    assert container.unit("nap.service", user="ann")["ActiveState"] == "active"
    assert len(container.pids("nap.service", "sleep", user="ann")) == 1
    assert any("Started" in entry["MESSAGE"] for entry in container.journal("nap.service", user=True))

    container.reboot()
    container.wait(
        lambda: (
            container.run("systemctl", "--user", "is-active", "nap.service", user="ann", check=False).returncode == 0
        ),
        30,
        "the user's unit after the boot",
    )


def test_two_containers_do_not_touch_each_other(start_container: StartContainer) -> None:
    first, second = start_container(), start_container()
    for each in (first, second):
        install(each, "nap.service", "/bin/sleep 600", {})
        each.run("systemctl", "start", "nap.service")
        assert len(each.pids("nap.service")) == 1
        # As the machine sees it: in one cgroup, the nap of the one would be the nap of the other.
        assert f"/{each.name}" in (Path("/proc") / str(each.init) / "cgroup").read_text()
    first.run("systemctl", "stop", "nap.service")
    first.write("/etc/mark", "first\n")
    assert second.unit("nap.service")["ActiveState"] == "active"
    assert len(second.pids("nap.service")) == 1
    assert second.run("cat", "/etc/mark", check=False).returncode != 0


def test_the_file_system_below_stays_as_it_was(container: Container) -> None:
    container.write("/etc/systemd/system/mark.service", "[Service]\nExecStart=/bin/true\n")
    assert container.read("/etc/systemd/system/mark.service").startswith("[Service]")
    assert not (rootfs.root() / "etc/systemd/system/mark.service").exists()
    for folder in ("/checkout", str(rootfs.INSTALLATION), str(SHARED)):
        assert container.run("touch", f"{folder}/mark", check=False).returncode != 0


def test_init_and_everybody_are_never_signalled(container: Container) -> None:
    for pid in (1, 0, -1):
        with pytest.raises(ValueError):
            container.signal(pid, signal.SIGTERM)


def members(container: Container) -> set[int]:
    """Every process of the container, as the machine numbers them."""
    own = (Path("/proc") / str(container.init) / "ns" / "pid").readlink()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "ns" / "pid").readlink() == own:
                found.add(int(folder.name))
    return found


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def assert_nothing_left(container: Container, inside: set[psutil.Process], before: set[psutil.Process]) -> None:
    assert not [process for process in inside if process.is_running()]
    # What others of this worker have running may have ended meanwhile.
    assert children() <= before
    assert not list(Path("/sys/fs/cgroup").rglob(f"{container.name}*"))
    assert "/run/root" not in Path("/proc/self/mountinfo").read_text()


def test_nothing_is_left(start_container: StartContainer) -> None:
    before = children()
    container = start_container()
    program = "trap : TERM; sleep 600 & while :; do wait; done"
    install(container, "stubborn.service", f'/bin/sh -c "{program}"', {}, "TimeoutStopSec=1")
    container.run("systemctl", "start", "stubborn.service")
    inside = set(map(psutil.Process, members(container)))
    assert len(inside) > 3
    container.close()
    assert_nothing_left(container, inside, before)


def test_nothing_runs_on_when_the_tests_are_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.parts import systemd;"
        "container = systemd.start(Path(sys.argv[1]), {});"
        "print(container.name, container.init, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "container")]
    tests = subprocess.Popen(
        command, cwd=rootfs.CHECKOUT, env=machine.ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with tests:
        assert tests.stdout
        name, init = tests.stdout.readline().split()
        processes = [psutil.Process(int(init)), *psutil.Process(tests.pid).children(recursive=True)]
        tests.kill()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for cgroup in Path("/sys/fs/cgroup").rglob(f"{name}-*"):
        remove_cgroup(cgroup)


def test_a_boot_that_hangs_is_given_up(start_container: StartContainer) -> None:
    before = children()
    container = start_container()
    own = ["Type=oneshot", "TimeoutStartSec=infinity", "[Unit]", "DefaultDependencies=no", "Before=sysinit.target"]
    install(container, "hang.service", "/bin/sleep infinity", {}, *own)
    container.run("systemctl", "add-wants", "sysinit.target", "hang.service")
    container.poweroff()
    with pytest.raises(BootError):
        container.boot(deadline_seconds=2)
    container.close()
    assert_nothing_left(container, set(), before)
