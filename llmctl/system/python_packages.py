"""A private Python environment: hash-pinned packages through the ordinary pip, with the user's pip configuration.

llmctl's own environment is never touched. Every package is named with its version and hashes; pip resolves nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import DownloadFailed, LlmctlError
from llmctl.system.command import Finished, OnLine, run
from llmctl.system.disk import disk_errors, disk_full
from llmctl.system.reach import require_reachable

DEFAULT_INDEX = "https://pypi.org/simple"


@dataclass(frozen=True)
class Requirement:
    """One package at one version. `sha256` lists the hashes of every file that may be taken (one for each machine);
    `marker` is an environment marker such as `python_version < "3.11"`."""

    name: str
    version: str
    sha256: tuple[str, ...]
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def line(self) -> str:
        hashes = "".join(f" --hash=sha256:{digest}" for digest in self.sha256)
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.name}=={self.version}{marker}{hashes}\n"


@dataclass(frozen=True)
class PythonEnvironment:
    """A virtual environment of its own, with pip. `on_line` gets what pip prints."""

    folder: Path
    environ: Mapping[str, str]
    on_line: OnLine | None = None

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        return self.bin / "python"

    def install(self, requirements: Sequence[Requirement]) -> None:
        """Install wheels, exactly these. Raises DownloadFailed or DiskFull."""
        if requirements:
            self._pip("install", "--only-binary", ":all:", "--no-user", requirements=requirements)

    def download_sdist(self, requirement: Requirement, into: Path) -> Path:
        """The package's source archive, in `into`. pip asks its build backend for metadata, so what the backend
        needs must be installed here before; nothing else is fetched."""
        self._pip(
            "download",
            "--no-build-isolation",
            "--no-binary",
            requirement.name,
            "--dest",
            str(into),
            requirements=[requirement],
        )
        stem = requirement.name.replace("-", "_")
        found = sorted(into.glob(f"{stem}-{requirement.version}.tar.*"))
        if not found:
            raise DownloadFailed(f"the package index holds no source archive of {requirement.name}")
        return found[0]

    def require_index(self) -> None:
        """DownloadFailed within 5 s when the package index cannot be reached."""
        config = run(self._command("config", "list"), environ=self.environ).tail
        index = index_url(config)
        if index is not None:
            require_reachable(index, self.environ)

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]

    def _pip(self, verb: str, *options: str, requirements: Iterable[Requirement]) -> None:
        pins = self.folder / "requirements.txt"
        with disk_errors(self.folder):
            pins.write_text("".join(requirement.line for requirement in requirements))
        fixed = ["--no-deps", "--require-hashes", "--progress-bar", "off", "--requirement", str(pins)]
        finished = run(self._command(verb, *options, *fixed), environ=self.environ, on_line=self.on_line)
        if finished.status != 0:
            raise pip_failure(finished, self.folder)


def create(folder: Path, environ: Mapping[str, str], on_line: OnLine | None = None) -> PythonEnvironment:
    """A new, empty environment in `folder`, made by the Python that runs llmctl."""
    finished = run([sys.executable, "-I", "-m", "venv", str(folder)], environ=environ, on_line=on_line)
    if finished.status != 0:
        if "No space left" in finished.text:
            raise disk_full(folder)
        raise LlmctlError(
            f"cannot make a virtual environment in {folder}: {finished.tail[-1] if finished.tail else 'no output'}",
            "sudo apt-get install python3-venv" if "ensurepip" in finished.text else None,
            code="venv_failed",
        )
    return PythonEnvironment(folder, environ, on_line)


def install_to(
    target: Path,
    requirements: Sequence[Requirement],
    environ: Mapping[str, str],
    on_line: OnLine | None = None,
) -> PythonEnvironment:
    """A new environment in `target` that holds `requirements` and nothing else; fails within 5 s where the package
    index cannot be reached. Run what it holds with its `python`."""
    environment = create(target, environ, on_line)
    environment.require_index()
    environment.install(requirements)
    return environment


def index_url(config_lines: Iterable[str]) -> str | None:
    """Where pip looks, from `pip config list` (lines of `key='value'`); None when it looks at no index at all."""
    values = {}
    # The environment (`:env:.index-url`) wins over every file, so it is read last.
    for line in sorted(config_lines, key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        if separator:
            values[key.rpartition(".")[2]] = value.strip("'\"")
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return None
    return values.get("index-url", DEFAULT_INDEX)


def pip_failure(finished: Finished, folder: Path) -> LlmctlError:
    if "No space left on device" in finished.text:
        return disk_full(folder)
    if "DO NOT MATCH THE HASHES" in finished.text:
        return DownloadFailed("a package differs from its pinned hash, so it was not used", code="hash_mismatch")
    errors = [line for line in finished.tail if line.startswith("ERROR:")] or list(finished.tail)
    why = errors[-1].removeprefix("ERROR:").strip() if errors else f"status {finished.status}"
    return DownloadFailed(f"pip could not get the packages: {why}", "pip config list")
