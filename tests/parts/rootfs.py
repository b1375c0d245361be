"""A Debian for containers to run on, and an installation of llmctl for it. Both lie in the tests' cache, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement

from tests.parts import machine
from tests.parts.namespace import Namespace, namespace

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CACHE = machine.CACHE / "systemd"
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
SUITE = "bookworm"
# What the engine links to, what a user's own manager needs, and a Python that every user may run.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd"),
    *("libgomp1", "libsqlite3-0", "libstdc++6"),
    *("python3", "python3-venv"),
)
# They would only run beside the tests.
_MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "getty.target", "console-getty.service"),
)
# Where a container has llmctl; `llmctl` on its PATH is a link into it.
INSTALLATION = Path("/usr/local/lib/llmctl")
_PIP_INSTALL = (f"{INSTALLATION}/bin/python3", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
# Files that decide what an installation of llmctl holds.
_SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "requirements.lock", "llmctl", "profiles", "systemd")


def _say(text: str) -> None:
    print(f"tests.parts: {text}", file=sys.stderr, flush=True)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """With the machine's own environment, as package tools need it."""
    done = subprocess.run(
        list(map(str, command)),
        env=machine.ENVIRON,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise OSError(f"`{Path(command[0]).name}` ended with status {done.returncode}:\n{tail}")
    return done.stdout


def _key(*parts: bytes | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` under another name where it is missing; half-made never gets this name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder)
    return folder


def root() -> Path:
    """Debian's minimal system with PACKAGES."""

    def make(part: Path) -> None:
        _say(f"debootstrap: Debian {SUITE} for containers, once, a minute")
        included = f"--include={','.join(PACKAGES)}"
        # What it mounts in there goes with it, also when it is cut off: nobody may clear a folder with a /sys in it.
        _run("unshare", "--mount", "debootstrap", "--variant=minbase", included, SUITE, part)
        for unit in _MASKED:
            (part / "etc/systemd/system" / unit).symlink_to("/dev/null")
        (part / "usr/local/bin/llmctl").symlink_to(INSTALLATION / "bin/llmctl")
        for folder in (part / str(INSTALLATION).lstrip("/"), part / "var/log/journal"):
            folder.mkdir(parents=True, exist_ok=True)
        # debootstrap copies these two from the machine.
        for name in ("hostname", "resolv.conf"):
            (part / "etc" / name).unlink(missing_ok=True)
        # As every installed system has it. Where `localhost` has no address, Ollama takes any port for a runner without
        # looking whether it is free (ollama v0.34.0 llm/llama_server.go:356-366), and some of its loads fail.
        (part / "etc/hosts").write_text(HOSTS)
        shutil.rmtree(part / "var/cache/apt/archives")

    made_from = (SUITE, *PACKAGES, "masked", *_MASKED, HOSTS, str(INSTALLATION), os.uname().machine)
    return _cached(CACHE / f"root-{_key(*made_from)}", make)


def installation() -> Path:
    """A virtual environment for INSTALLATION with the wheel of this checkout and what requirements.lock names.

    Its Python is the container's: what a compiled wheel was made for and who may run it is decided there.
    """
    lower = root()
    lock = (CHECKOUT / "requirements.lock").read_bytes()
    bare = CACHE / f"dependencies-{_key(lower.name, lock)}"
    _cached(bare, lambda part: _install_dependencies(lower, part))
    target = CACHE / f"llmctl-{_key(bare.name, *_shipped())}"
    _cached(target, lambda part: _install_llmctl(lower, bare, part))
    os.utime(target)
    _prune(target)
    return target


def _shipped() -> Iterator[bytes]:
    for name in _SHIPPED:
        top = CHECKOUT / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(CHECKOUT)).encode()
                yield path.read_bytes()


def _prune(current: Path) -> None:
    """Every change of the code makes another one. Those that nobody used for a day go."""
    for old in CACHE.glob("llmctl-*/"):
        with suppress(OSError):
            if current.stat().st_mtime - old.stat().st_mtime > 86_400:
                shutil.rmtree(old)


def _install_dependencies(lower: Path, part: Path) -> None:
    _say("pip: what llmctl depends on, for the containers' Python, once")
    part.mkdir()
    with tempfile.TemporaryDirectory() as scratch, namespace(lower) as within:
        wheels = Path(scratch)
        version = _inside(within, {}, "python3", "-c", "import platform; print(platform.python_version())").strip()
        (wheels / "requirements.txt").write_text(_for_python(version))
        _run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--python-version", version, "--implementation", "cp"),
            *("--dest", wheels, "--requirement", wheels / "requirements.txt"),
        )
        binds = {INSTALLATION: part, Path("/wheels"): wheels}
        _inside(within, binds, "python3", "-m", "venv", INSTALLATION)
        named = ("--find-links=/wheels", "--require-hashes", "--requirement=/wheels/requirements.txt")
        _inside(within, binds, *_PIP_INSTALL, *named)


def _for_python(version: str) -> str:
    """requirements.lock without the lines that are for another Python; pip would ask the one it runs on."""
    about = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    wanted = []
    for line in (CHECKOUT / "requirements.lock").read_text().replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split(" --hash=")
        parsed = Requirement(requirement)
        if parsed.marker is None or parsed.marker.evaluate(about):
            wanted.append(" --hash=".join([f"{parsed.name}{parsed.specifier}", *map(str.strip, hashes)]))
    return "\n".join(wanted) + "\n"


def _install_llmctl(lower: Path, bare: Path, part: Path) -> None:
    # Linked: pip only adds to what is there.
    shutil.copytree(bare, part, symlinks=True, copy_function=os.link)
    with tempfile.TemporaryDirectory() as scratch, namespace(lower) as within:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
        _run(*build, "--outdir", scratch, CHECKOUT)
        (wheel,) = Path(scratch).glob("*.whl")
        binds = {INSTALLATION: part, Path("/wheels"): Path(scratch)}
        _inside(within, binds, *_PIP_INSTALL, f"/wheels/{wheel.name}")


def _inside(within: Namespace, binds: dict[Path, Path], *argv: str | Path) -> str:
    """Run one program in the root file system, without an init."""
    nspawn = ["systemd-nspawn", "--quiet", "-D", str(within.root), "--register=no", "--keep-unit", "--pipe"]
    bound = [f"--bind={outside}:{inside}" for inside, outside in binds.items()]
    return _run(*within.command(*nspawn, "--resolv-conf=off", "--timezone=off", *bound, *argv))
