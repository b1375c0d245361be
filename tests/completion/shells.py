"""A real shell on a pseudo-terminal: type, press Tab and Enter, and see what `llmctl` would have been run with."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROMPT = b"READY> "
DEADLINE_SECONDS = 15.0
START = {
    "bash": ("source <(llmctl completion bash)\nPS1='READY> '\n", ["--noprofile", "--rcfile", "{rc}", "-i"]),
    "zsh": ("autoload -Uz compinit\ncompinit -u\nsource <(llmctl completion zsh)\nPS1='READY> '\n", ["-d", "-i"]),
    "fish": (
        "llmctl completion fish | source\nfunction fish_prompt\n  echo -n 'READY> '\nend\nset -U fish_greeting\n",
        ["--init-command", "source {rc}", "-i"],
    ),
}


class Shell:
    """`llmctl` in it completes as the real one does and otherwise writes its arguments down."""

    def __init__(self, name: str, folder: Path, llmctl: Path) -> None:
        text, arguments = START[name]
        self.asked = folder / "asked"
        self.output = b""
        real = llmctl.with_name("real-llmctl")
        llmctl.rename(real)
        llmctl.write_text(
            "#!/bin/sh\n"
            f'case "$1" in __complete|completion) exec "{real}" "$@";; esac\n'
            f'printf \'%s\\n\' "$@" > "{self.asked}.part" && mv "{self.asked}.part" "{self.asked}"\n'
        )
        llmctl.chmod(0o755)
        rc = folder / ".zshrc"
        rc.write_text(text)
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [shutil.which(name) or name, *(argument.format(rc=rc) for argument in arguments)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "ZDOTDIR": str(folder), "TERM": "xterm"},
            cwd=folder,
            start_new_session=True,
            # The shell needs the terminal to be its own, or it warns and does without line editing.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(terminal)
        self._until(lambda: PROMPT in self.output)

    def typed(self, keys: str) -> list[str]:
        """The arguments that `llmctl` gets when `keys` are typed and Enter is pressed."""
        self.asked.unlink(missing_ok=True)
        os.write(self.master, keys.encode() + b"\r")
        self._until(self.asked.exists)
        return self.asked.read_text().splitlines()

    def shown(self, keys: str, wanted: str) -> None:
        """Type `keys` and wait until the terminal shows `wanted`."""
        before = len(self.output)
        os.write(self.master, keys.encode())
        self._until(lambda: wanted.encode() in self.output[before:])

    def _until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not reached():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"the shell shows:\n{self.output.decode(errors='replace')}")
            if select.select([self.master], [], [], 0.02)[0]:
                self.output += os.read(self.master, 65536)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)
