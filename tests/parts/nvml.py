"""A scripted NVIDIA driver: the C stand-in for libnvidia-ml.so.1, under the real pynvml."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from tests.parts import machine

_SOURCE = Path(__file__).parent.parent / "nvml" / "nvml_standin.c"


@dataclass
class ScriptedGpu:
    """One GPU as NVML tells it; None is what NVML cannot tell. A process is (pid, bytes or None)."""

    name: str | None = "NVIDIA GeForce RTX 3090"
    uuid: str | None = "GPU-3f2a7c10-0000-4000-8000-000000000000"
    total_bytes: int | None = 25_769_803_776
    used_bytes: int = 536_870_912
    compute: list[tuple[int, int | None]] = field(default_factory=list)
    graphics: list[tuple[int, int | None]] = field(default_factory=list)
    temperature: int | None = 45
    throttle: int | None = 0
    pcie: tuple[int, int, int, int] | None = (4, 16, 4, 16)
    errors: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        total = self.total_bytes
        settings = {
            "name": self.name,
            "uuid": self.uuid,
            "memory": f"{total} {self.used_bytes} {total - self.used_bytes}" if total is not None else None,
            "temperature": self.temperature,
            "throttle": self.throttle,
            "pcie": " ".join(map(str, self.pcie)) if self.pcie else None,
        }
        return [
            "gpu",
            *(f"{key} {value}" for key, value in settings.items() if value is not None),
            *(f"compute {pid} {'-' if used is None else used}" for pid, used in self.compute),
            *(f"graphics {pid} {'-' if used is None else used}" for pid, used in self.graphics),
            *(f"error {call} {code}" for call, code in self.errors.items()),
        ]


@dataclass
class NvmlStandin:
    """`environ` puts the library under a program; `set` changes what it tells, also while the program runs."""

    library: Path
    script: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library.parent), "NVML_STANDIN": str(self.script)}

    def set(self, *gpus: ScriptedGpu, driver: str | None = "570.86.10", errors: dict[str, str] | None = None) -> None:
        lines = [f"driver {driver}"] if driver else []
        lines += [f"error {call} {code}" for call, code in (errors or {}).items()]
        for gpu in gpus:
            lines += gpu.lines()
        part = self.script.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        part.replace(self.script)


def _compiler() -> str | None:
    return machine.ENVIRON.get("CC") or shutil.which("cc") or shutil.which("gcc")


def _compile(target: Path) -> None:
    compiler = _compiler()
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc) on PATH")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", part, _SOURCE], check=True, capture_output=True, text=True)
        part.rename(target)


@lru_cache(maxsize=1)
def library() -> Path:
    """The compiled stand-in, cached by its source."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + os.uname().machine.encode()).hexdigest()
    folder = machine.CACHE / "nvml" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "libnvidia-ml.so.1"
    with FileLock(folder / "lock"):
        if not target.exists():
            _compile(target)
    return target


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """None when the stand-in compiles here, else the reason."""
    try:
        library()
    except subprocess.CalledProcessError as error:
        return f"the NVML stand-in does not compile: {error.stderr}"
    except OSError as error:
        return f"the NVML stand-in cannot be built: {error}"
    return None
