"""A real registry: Debian's docker-registry on loopback, behind an nginx that adds what Ollama misses in it.

`ollama pull` wants a Location with a blob's 200, which the registry sends only from stores other than a disk; so it
takes a push of Ollama's as it is, and gives it back only with nginx before it. Both run from the packages' files:
installed, or unpacked into the cache by `.ci/packages`, which starts no service.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.parts import machine

UNPACKED = machine.CACHE / "registry"
_FOLDERS = (UNPACKED / "usr/bin", UNPACKED / "usr/sbin")

REGISTRY = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: "{folder}/data"}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""

NGINX = """\
daemon off;
master_process off;
pid "{folder}/nginx.pid";
error_log stderr warn;
events {{}}
http {{
  access_log "{folder}/access.log";
  client_body_temp_path "{folder}/nginx-body";
  proxy_temp_path "{folder}/nginx-proxy";
  fastcgi_temp_path "{folder}/nginx-fastcgi";
  uwsgi_temp_path "{folder}/nginx-uwsgi";
  scgi_temp_path "{folder}/nginx-scgi";
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-Proto $scheme;
  server {{
    listen 127.0.0.1:{port} {tls};
    location / {{ proxy_pass http://127.0.0.1:{backend}; }}
    location ~ /blobs/sha256: {{
      proxy_pass http://127.0.0.1:{backend};
      add_header Location $request_uri;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own, and what it signed: a certificate of 127.0.0.1, localhost and
    registry.example."""

    certificate: Path
    server_certificate: Path
    server_key: Path


@dataclass
class RealRegistry:
    """`host` is host:port as it stands in model names; `authority` is None where it speaks plain http."""

    host: str
    authority: Authority | None
    folder: Path
    processes: list[subprocess.Popen[bytes]]

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs in its environment to trust it."""
        return {"SSL_CERT_FILE": str(self.authority.certificate)} if self.authority else {}

    def name(self, model: str) -> str:
        return f"{self.host}/library/{model}"

    def asked(self) -> list[str]:
        """The request lines so far, as nginx saw them."""
        return [line.split('"')[1] for line in (self.folder / "access.log").read_text().splitlines()]

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def program(name: str) -> str | None:
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", *map(str, _FOLDERS)]
    return shutil.which(name, path=os.pathsep.join(folders))


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when a registry can be started, else the reason."""
    missing = [name for name in ("docker-registry", "nginx", "openssl") if program(name) is None]
    return f"no {' and no '.join(missing)}; `make packages` gets them" if missing else None


def authority(folder: Path) -> Authority:
    """Made with openssl; valid for two days."""
    folder.mkdir(parents=True)
    made = Authority(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    common = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    root = ["-keyout", folder / "ca.key", "-out", made.certificate, "-subj", "/CN=llmctl tests", "-days", "2"]
    leaf = ["-keyout", made.server_key, "-out", made.server_certificate, "-subj", "/CN=localhost", "-days", "2"]
    signed = ["-CA", made.certificate, "-CAkey", folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.example"]
    for rest in (root, [*leaf, *signed, *names]):
        subprocess.run([*common, *rest], check=True, capture_output=True)
    return made


def start(folder: Path, trust: Authority | None = None) -> RealRegistry:
    """Start both; they answer when this returns. With `trust` over https."""
    folder.mkdir(parents=True)
    backend, port = machine.free_port(), machine.free_port()
    tls = (
        f'ssl; ssl_certificate "{trust.server_certificate}"; ssl_certificate_key "{trust.server_key}"' if trust else ""
    )
    (folder / "registry.yml").write_text(REGISTRY.format(folder=folder, port=backend))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, backend=backend, tls=tls))
    registry = RealRegistry(f"{'localhost' if trust else '127.0.0.1'}:{port}", trust, folder, [])
    commands = (
        [program("docker-registry"), "serve", folder / "registry.yml"],
        [program("nginx"), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"],
    )
    for number, command in enumerate(commands):
        with (folder / f"process-{number}.log").open("wb") as log:
            registry.processes.append(_start(folder, command, log))
    _await(registry, port)
    return registry


def _start(folder: Path, command: list[str | Path | None], log: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*machine.ENDS_WITH_TESTS, *map(str, command)],
        env={"PATH": machine.ENVIRON.get("PATH", ""), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=log,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _await(registry: RealRegistry, port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and all(process.poll() is None for process in registry.processes):
        with suppress(OSError, http.client.HTTPException):
            if _status(registry, port) == 200:
                return
        time.sleep(0.02)
    registry.stop()
    raise RuntimeError(f"the registry did not answer on {registry.host}:\n{registry.log}")


def _status(registry: RealRegistry, port: int) -> int:
    connection: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if registry.authority:
        context = ssl.create_default_context(cafile=str(registry.authority.certificate))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()
