"""Fuzz the GGUF reader with atheris: every input is read, or refused with GgufError within a second and 200 MB.

    python benchmarks/fuzz_gguf.py [--seconds 600] [--corpus FOLDER] [--python PYTHON]

PYTHON is one that has atheris; else it is installed into an environment in the benchmarks' own cache. libFuzzer stops
at the first other exception, at an input that takes more than a second, and at 200 MB beyond what it takes itself; the
input is then in the corpus folder, as crash-*, timeout-* or oom-*.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))

ATHERIS = "atheris==3.0.0"
# The interpreter, the tables of the fuzzer and its corpus: some 45 MB when it begins.
OWN_MEGABYTES = 100
MAXIMUM_MEGABYTES = 200


def seeds(folder: Path) -> None:
    """Small files that reach every part of the reader."""
    from tests.memory import gguf_bytes, published

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small").write_bytes(gguf_bytes.small())
    (folder / "empty").write_bytes(gguf_bytes.file([], []))
    for name in ("all-minilm-l6", "gemma-3-270m", "gpt-oss-20b"):
        (folder / name).write_bytes(published.header(published.MODELS[name])[:4096])


def fuzz(folder: Path, seconds: int) -> None:
    """Run in this process, which has atheris. The data claims to be as long as it is, or a terabyte."""
    import atheris

    with atheris.instrument_imports(include=["llmctl.core.memory"]):
        from llmctl.core.memory import cursor, gguf, shape
    del cursor

    def one(data: bytes) -> None:
        # The weights are a hole: they count to the size and are never read.
        for size in (len(data), 1 << 40):
            try:
                shape.from_gguf(gguf.parse(lambda offset, length: data[offset : offset + length], size))
            except gguf.GgufError:
                continue

    limits = [f"-max_total_time={seconds}", "-timeout=1", f"-rss_limit_mb={OWN_MEGABYTES + MAXIMUM_MEGABYTES}"]
    limits += ["-max_len=16384", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-close_fd_mask=1"]
    atheris.Setup([sys.argv[0], *limits, str(folder)], one)
    atheris.Fuzz()


def atheris_python(cache: Path) -> Path:
    folder = cache / ATHERIS
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", ATHERIS], check=True)
        (folder / "installed").touch()
    return python


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seconds", type=int, default=600)
    options.add_argument("--corpus", type=Path, help="keep what was found here (default: a temporary folder)")
    options.add_argument("--python", type=Path, help="a Python that has atheris")
    options.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside:
        fuzz(given.corpus, given.seconds)
        return
    from tests.parts import machine

    python = given.python or atheris_python(machine.CACHE.with_name("llmctl-benchmarks"))
    with tempfile.TemporaryDirectory() as name:
        corpus = given.corpus or Path(name)
        seeds(corpus)
        command = [str(python), __file__, "--inside", "--seconds", str(given.seconds), "--corpus", str(corpus)]
        done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)})
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
