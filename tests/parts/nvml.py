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
    """One GPU as NVML tells it, an idle RTX 3090 until told otherwise; None is what NVML cannot tell.

    A process is (pid, bytes or None). `limits`: degrees of shutdown, slowdown, and the most it should run at.
    `power`: watts now, the limit, the maker's limit. `clock`: MHz now and at most, of the multiprocessors, then of
    the memory. `busy`: percent by pid. `utilization`: percent of the GPU
    and of its memory. `mig`: now, and after the next reset. `ecc`: corrected and uncorrected errors.
    """

    name: str | None = "NVIDIA GeForce RTX 3090"
    uuid: str | None = "GPU-3f2a7c10-0000-4000-8000-000000000000"
    total_bytes: int | None = 25_769_803_776
    used_bytes: int = 536_870_912
    compute: list[tuple[int, int | None]] = field(default_factory=list)
    graphics: list[tuple[int, int | None]] = field(default_factory=list)
    temperature: int | None = 45
    throttle: int | None = 0
    pcie: tuple[int, int, int, int] | None = (4, 16, 4, 16)
    limits: tuple[int, int, int] | None = (98, 95, 93)
    power: tuple[float, float, float] | None = (30.0, 350.0, 350.0)
    clock: tuple[int, ...] | None = (210, 2100)
    busy: dict[int, int] | None = None
    utilization: tuple[int, int] | None = (0, 1)
    persistence: int | None = 1
    display: int | None = 0
    mig: tuple[int, int] | None = None
    ecc: tuple[int, int] | None = None
    capability: tuple[int, int] | None = (8, 6)
    errors: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        total = self.total_bytes
        settings = {
            "name": self.name,
            "uuid": self.uuid,
            "memory": f"{total} {self.used_bytes} {total - self.used_bytes}" if total is not None else None,
            "temperature": self.temperature,
            "throttle": self.throttle,
            "pcie": numbers(self.pcie),
            "limits": numbers(self.limits),
            "power": numbers(tuple(int(watts * 1000) for watts in self.power)) if self.power else None,
            "clock": numbers(self.clock),
            "utilization": numbers(self.utilization),
            "persistence": self.persistence,
            "display": self.display,
            "mig": numbers(self.mig),
            "ecc": numbers(self.ecc),
            "capability": numbers(self.capability),
        }
        return [
            "gpu",
            *(f"{key} {value}" for key, value in settings.items() if value is not None),
            *(f"compute {pid} {'-' if used is None else used}" for pid, used in self.compute),
            *(f"graphics {pid} {'-' if used is None else used}" for pid, used in self.graphics),
            *(f"busy {pid} {percent}" for pid, percent in (self.busy or ({} if self.busy is None else {0: 0})).items()),
            *(f"error {call} {code}" for call, code in self.errors.items()),
        ]


def numbers(values: tuple[int, ...] | None) -> str | None:
    return None if values is None else " ".join(map(str, values))


@dataclass
class NvmlStandin:
    """`environ` puts the library under a program; `set` changes what it tells, also while the program runs."""

    library: Path
    script: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library.parent), "NVML_STANDIN": str(self.script)}

    def set(
        self,
        *gpus: ScriptedGpu,
        driver: str | None = "570.86.10",
        errors: dict[str, str] | None = None,
        names: dict[int, str] | None = None,
    ) -> None:
        lines = [f"driver {driver}"] if driver else []
        lines += [f"process {pid} {name}" for pid, name in (names or {}).items()]
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
