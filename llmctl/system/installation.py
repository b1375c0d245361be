"""A copy of the llmctl that runs, in a place of its own, on the system's own Python.

A service must not depend on somebody's home: not on the environment that llmctl was installed into, and not on a
Python that lies there. What is copied is what the running installation consists of, by its RECORD files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from llmctl.errors import LlmctlError
from llmctl.system.files import translated
from llmctl.system.shipped import KINDS, Kind, data_folder

NAME = "llmctl"
# Where a Python that every user may run is looked for.
SYSTEM_BIN = ("/usr/bin", "/usr/local/bin", "/bin")
HOMES = ("/home", "/root", "/tmp", "/var/tmp")  # noqa: S108 - such a place is refused
START = """\
#!{python} -I
import sys
from llmctl.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Source:
    """What would be copied: the package's folder, its shipped data, and the distributions that it needs."""

    package: Path
    data: Mapping[Kind, Path]
    distributions: tuple[str, ...]
    python: Path


def source() -> Source:
    """The running installation. LlmctlError where it cannot be copied."""
    package = Path(__file__).resolve().parents[1]
    data = {kind: data_folder(kind) for kind in KINDS}
    return Source(package, data, tuple(sorted(needed())), system_python())


def needed() -> set[str]:
    """llmctl and every distribution below it. What a marker excludes here is not installed here."""
    found: set[str] = set()
    todo = [NAME]
    while todo:
        name = todo.pop()
        if canonical(name) in found:
            continue
        try:
            requirements = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            if name == NAME:
                message = "this llmctl was not installed: it runs from a folder, and nothing tells what it needs"
                raise LlmctlError(message, "pip install . in that folder, then the same command", code="bare") from None
            continue
        found.add(canonical(name))
        todo += [requirement_name(each) for each in requirements if "extra ==" not in each]
    return found


def requirement_name(text: str) -> str:
    """The name at the beginning of a requirement such as `rich>=14; python_version > "3"`."""
    end = next((at for at, letter in enumerate(text) if not (letter.isalnum() or letter in "-_.")), len(text))
    return text[:end]


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def system_python() -> Path:
    """A Python that every user may run, of the version that runs now: compiled packages are made for one version."""
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in SYSTEM_BIN:
        program = Path(folder) / wanted
        if os.access(program, os.X_OK) and not str(program.resolve()).startswith(HOMES):
            return program
    raise LlmctlError(
        f"the service needs a Python of the system, and there is no {wanted} in {' or '.join(SYSTEM_BIN)}",
        f"install {wanted}, or install llmctl with the python3 of the system (3.10 or newer)",
        code="no_python",
    )


STAMP = "source.sha256"


def stamp(found: Source) -> str:
    """Changes when anything that would be copied does."""
    facts = hashlib.sha256(f"{found.python} {sys.version}\n".encode())
    for origin, place in sorted(files(found)):
        known = origin.stat()
        facts.update(f"{place} {known.st_size} {known.st_mtime_ns}\n".encode())
    return facts.hexdigest()


def is_current(found: Source, target: Path) -> bool:
    """Whether `target` is what `install` would make of it."""
    try:
        return (target / STAMP).read_text() == stamp(found) and (target / "bin" / "python3").exists()
    except OSError:
        return False


def install(found: Source, target: Path) -> None:
    """Make `target` this installation: built beside it, then renamed. What was there is gone afterwards."""
    beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    with translated("write", target):
        for leftover in target.parent.glob(f".{target.name}.*"):
            shutil.rmtree(leftover)
        try:
            build(found, beside, target)
            old = target.with_name(f"{beside.name}.old")
            if target.exists():
                target.rename(old)
            beside.rename(target)
        finally:
            for leftover in (beside, target.with_name(f"{beside.name}.old")):
                shutil.rmtree(leftover, ignore_errors=True)


def build(found: Source, folder: Path, final: Path) -> None:
    """A virtual environment by hand: the `venv` module is missing from some systems' Python."""
    packages = folder / "lib" / found.python.name / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {found.python.parent}\ninclude-system-site-packages = false\n")
    (folder / "bin" / "python3").symlink_to(found.python)
    for origin, relative in files(found):
        place = packages / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, place)
    (folder / STAMP).write_text(stamp(found))
    program = folder / "bin" / NAME
    program.write_text(START.format(python=final / "bin" / "python3"))
    compile_all(folder / "bin" / "python3", packages)
    open_to_all(folder)
    program.chmod(0o755)


def files(found: Source) -> Iterator[tuple[Path, Path]]:
    """Every file, with its place below site-packages."""
    yield from below(found.package, Path(NAME))
    for kind, folder in found.data.items():
        yield from below(folder, Path(NAME, "_data", kind))
    for name in found.distributions:
        yield from files_of(name)


def below(folder: Path, place: Path) -> Iterator[tuple[Path, Path]]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in relative.parts:
            yield path, place / relative


def files_of(name: str) -> Iterator[tuple[Path, Path]]:
    """The files of a distribution below site-packages, each with its place there. Of llmctl itself, whose package
    is copied as it is, only what names it."""
    for path in metadata.distribution(name).files or ():
        relative = Path(path)
        if relative.is_absolute() or ".." in relative.parts or "__pycache__" in relative.parts:
            continue
        if canonical(name) == NAME and not (".dist-info" in relative.parts[0] and relative.name == "METADATA"):
            continue
        origin = Path(str(path.locate()))
        if origin.is_file():
            yield origin, relative


def open_to_all(folder: Path) -> None:
    """Whatever the umask: everybody may read, nobody but root may write."""
    for root, _, names in os.walk(folder):
        Path(root).chmod(0o755)
        for name in names:
            path = Path(root, name)
            if not path.is_symlink():
                path.chmod(0o644)


def compile_all(python: Path, packages: Path) -> None:
    """Byte code beside the sources: the service may not write there, and every start would compile anew."""
    from llmctl.system import command

    done = command.run(
        [str(python), "-I", "-m", "compileall", "-q", str(packages)], environ={"PATH": os.defpath}, timeout_seconds=300
    )
    if done.status != 0:
        last = done.tail[-1] if done.tail else f"status {done.status}"
        raise LlmctlError(f"{python} cannot compile llmctl: {last[:200]}")
