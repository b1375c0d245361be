"""Env: the process's streams and environment, and every collaborator, built when first asked for.

The one place where services are constructed. Tests give their own streams and environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from pathlib import Path

    from llmctl.client import Client
    from llmctl.core.profile import Profile
    from llmctl.core.server_state import ServerState
    from llmctl.engines import Engines
    from llmctl.library import Library
    from llmctl.residency import Residency
    from llmctl.server import Server
    from llmctl.system.nvml import GpuInventory
    from llmctl.system.paths import Paths
    from llmctl.workflows.up import Services


@dataclass(frozen=True)
class FoundProfile:
    """A profile, and in words which one and why."""

    profile: Profile
    words: str


def nowhere(mode: str) -> TextIO:
    """For a stream that the caller closed (`<&-`), which Python makes None."""
    return cast("TextIO", open(os.devnull, mode))  # noqa: PTH123


class Env:
    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.stdin = stdin or sys.stdin or nowhere("r")
        self.stdout = stdout or sys.stdout or nowhere("w")
        self.stderr = stderr or sys.stderr or nowhere("w")
        # The command line, as it was typed after `llmctl`.
        self.words: tuple[str, ...] = ()
        self._clients: dict[str, Client] = {}

    @cached_property
    def paths(self) -> Paths:
        from llmctl.system.paths import SYSTEM, from_environment

        own = from_environment(self.environ)
        return SYSTEM if own != SYSTEM and self.means_system(own) else own

    def means_system(self, own: Paths) -> bool:
        """Whether who chose no folders means the service of the whole machine: root does where it is installed, and
        so does a user who has nothing of their own."""
        from llmctl.server import Server
        from llmctl.system import systemd

        chosen = {f"LLMCTL_{name}" for name in ("SCOPE", "CONFIG_DIR", "DATA_DIR", "STATE_DIR")}
        if chosen & self.environ.keys() or not systemd.system_installed():
            return False
        mine = Server(own, self.environ)
        if mine.state() is not None:
            return False
        return os.geteuid() == 0 or (mine.service is None and not own.profile.exists())

    @cached_property
    def state(self) -> ServerState | None:
        """What the last `up` left behind, or None."""
        return self.server.state()

    @cached_property
    def server(self) -> Server:
        from llmctl.server import Server

        return Server(self.paths, self.environ)

    @cached_property
    def engines(self) -> Engines:
        from llmctl.engines import Engines

        return Engines(self.paths, self.environ)

    @cached_property
    def residency(self) -> Residency:
        from llmctl.residency import Residency

        return Residency()

    def library(self, base_url: str) -> Library:
        """The models of the server at `base_url`."""
        from llmctl.library import Library

        return Library(self.client(base_url), self.paths, self.environ)

    def client(self, base_url: str) -> Client:
        from llmctl.client import Client

        if base_url not in self._clients:
            self._clients[base_url] = Client(base_url)
        return self._clients[base_url]

    def of_user(self) -> Env:
        """The same with the user's own folders, whatever service this machine has."""
        return Env({**self.environ, "LLMCTL_SCOPE": "user"}, self.stdin, self.stdout, self.stderr)

    def invoker(self) -> Env:
        """Under sudo: the same with the folders of the person who typed it, to find what is theirs."""
        name = self.environ.get("SUDO_USER")
        if os.geteuid() != 0 or not name or name == "root":
            return self.of_user()
        from llmctl.system.paths import of_home

        return Env({**self.environ, **of_home(name)}, self.stdin, self.stdout, self.stderr)

    def require_root(self, verb: str, *, beside: bool = False) -> None:
        """Refused, with the command that may, for who would change the service of the whole machine and is not root;
        with `beside` also the one that does it for their own folders.

        Asked first: a server does for anybody what this user could not even note in its lock afterwards.
        """
        import shlex

        from llmctl.workflows.service import require_rights

        # What follows `--` belongs to somebody else, and stays as it is.
        end = self.words.index("--") if "--" in self.words else len(self.words)
        typed = (*(word for word in self.words[:end] if word != "--json"), *self.words[end:])
        require_rights(self.server.service, verb, shlex.join(typed), beside=beside)

    def profile(self, ref: str | None) -> Profile:
        return self.find_profile(ref).profile

    def find_profile(self, ref: str | None) -> FoundProfile:
        """The profile that `ref`, LLMCTL_PROFILE, the last `up`, or the files name; else init's choice."""
        from llmctl.system.shipped import load_shipped, resolve

        found = resolve(ref, self.paths, self.environ, self.server.last_profile())
        if found is not None:
            return FoundProfile(found, found.reference)
        name, reason = self.chosen_profile()
        return FoundProfile(load_shipped(name), f"{name}, because {reason}")

    def known_url(self, ref: str | None) -> str | None:
        """Where a server would be that no `up` has recorded; None for a private profile, which has none yet."""
        profile = self.profile(ref)
        if profile.private and self.server.owned() is None:
            return None
        return self.server.address(profile).url

    def state_of(self, ref: str | None) -> ServerState | None:
        """The recorded state, where it is that of the profile asked for."""
        if self.state is None or ref is None or self.state.profile == self.profile(ref).reference:
            return self.state
        return None

    def lock_path(self, profile: Profile) -> Path:
        from llmctl.system.shipped import lock_path

        return lock_path(profile, self.paths)

    def services(self) -> Services:
        from llmctl.workflows.up import Services

        return Services(self.server, self.engines, self.residency, self.client, self.library)

    def chosen_profile(self) -> tuple[str, str]:
        """The shipped profile that fits this machine's GPUs, and why."""
        from llmctl.core.gpu import choose_profile

        inventory = self.gpus()
        choice = choose_profile(inventory.gpus)
        return choice.name, f"{choice.reason} ({inventory.unavailable})" if inventory.unavailable else choice.reason

    def gpus(self) -> GpuInventory:
        from llmctl.system import nvml

        return nvml.gpus()
