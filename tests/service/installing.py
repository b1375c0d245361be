"""llmctl's service in a container: installed from its command line, as its user does it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.lifecycle.conftest import PROFILE, Done
from tests.parts import machine
from tests.parts.systemd import Container
from tests.service.conftest import ENGINE, STARTER_GGUF

ENGINE_UNIT = "llmctl-engine.service"
GUARD_UNIT = "llmctl-guard.service"
TARGET = "llmctl.target"


@dataclass
class Service:
    """One container and the port of its server."""

    container: Container
    port: int

    def profile(self, path: str = "/root/my.yaml", *, require: str = "none", context: int = 2048) -> str:
        text = PROFILE.format(port=self.port, context=context, source=STARTER_GGUF, require=require)
        self.container.write(path, text)
        return path

    def llmctl(
        self, *arguments: str, user: str | None = None, environ: Mapping[str, str] | None = None, seconds: float = 240
    ) -> Done:
        variables = {"LLMCTL_ENGINE": str(ENGINE / "bin" / "ollama"), **(environ or {})}
        done = self.container.run(
            "llmctl", *arguments, user=user, environ=variables, check=False, timeout_seconds=seconds
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def install(self, *more: str, profile: str | None = None, environ: Mapping[str, str] | None = None) -> Done:
        return self.llmctl(
            "install-service", "--profile", profile or self.profile(), "--yes", "--json", *more, environ=environ
        )

    def add_to_engine(self, *lines: str) -> None:
        """What a person adds to the unit by `systemctl edit`."""
        self.container.write(f"/etc/systemd/system/{ENGINE_UNIT}.d/mine.conf", "\n".join(lines) + "\n")
        self.container.run("systemctl", "daemon-reload")

    @property
    def resident(self) -> bool:
        return self.llmctl("status", "--quiet").code == 0

    def await_resident(self, seconds: float = 120) -> None:
        self.container.wait(lambda: self.resident, seconds, "the model to be resident and proved")


def service(container: Container) -> Service:
    return Service(container, machine.free_port())


def rpc_server(program: Path, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """The stand-in GPU on a port that was promised before."""
    return subprocess.Popen(
        [*machine.ENDS_WITH_TESTS, program, "-H", "127.0.0.1", "-p", str(port)],
        env={"PATH": machine.ENVIRON.get("PATH", ""), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
