"""Where llmctl keeps its files: XDG folders, each overridable by environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """llmctl's folders. Nothing is created by naming them."""

    config: Path
    data: Path
    state: Path
    cache: Path
    engines: Path
    runtime: Path
    system_profile: Path = Path("/etc/llmctl/profile.yaml")

    @property
    def profile(self) -> Path:
        """The user's own profile."""
        return self.config / "profile.yaml"

    @property
    def models(self) -> Path:
        """llmctl's own model store, used where the user has none."""
        return self.data / "models"

    @property
    def state_file(self) -> Path:
        return self.state / "state.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def llmctl(self) -> str:
        """How a person calls llmctl with the rights that these folders need."""
        return "sudo llmctl" if self == SYSTEM else "llmctl"

    @property
    def server_log(self) -> Path:
        """What the engine writes to stdout and stderr, when llmctl started it."""
        return self.logs / "server.log"


# What the service of the whole machine uses; its units say so with LLMCTL_SCOPE=system.
SYSTEM = Paths(
    config=Path("/etc/llmctl"),
    data=Path("/var/lib/llmctl"),
    state=Path("/var/lib/llmctl/state"),
    cache=Path("/var/cache/llmctl"),
    engines=Path("/var/lib/llmctl/engines"),
    runtime=Path("/run/llmctl"),
)


def from_environment(environ: Mapping[str, str]) -> Paths:
    """LLMCTL_{CONFIG,DATA,STATE,CACHE,ENGINES,RUNTIME}_DIR win over the XDG folders of platformdirs.

    The runtime folder is gone after a boot; where the session has none, it lies in the state folder.
    """
    if environ.get("LLMCTL_SCOPE") == "system":
        return SYSTEM
    import platformdirs

    dirs = platformdirs.PlatformDirs("llmctl", appauthor=False)

    def pick(name: str, default: Path) -> Path:
        value = environ.get(f"LLMCTL_{name}_DIR")
        return Path(value).expanduser().absolute() if value else default

    data = pick("DATA", dirs.user_data_path)
    state = pick("STATE", dirs.user_state_path)
    session = environ.get("XDG_RUNTIME_DIR")
    own_state = "LLMCTL_STATE_DIR" in environ or not session
    return Paths(
        config=pick("CONFIG", dirs.user_config_path),
        data=data,
        state=state,
        cache=pick("CACHE", dirs.user_cache_path),
        engines=pick("ENGINES", data / "engines"),
        # Who has a state folder of their own (two llmctl beside each other) must not share this one.
        runtime=pick("RUNTIME", state / "run" if own_state else Path(str(session)) / "llmctl"),
    )


def of_home(user: str) -> dict[str, str]:
    """The environment that makes `from_environment` give the folders of another user, by their home."""
    import pwd

    try:
        home = Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        return {}
    data = home / ".local/share/llmctl"
    return {
        "HOME": str(home),
        "LLMCTL_SCOPE": "user",
        "LLMCTL_CONFIG_DIR": str(home / ".config/llmctl"),
        "LLMCTL_DATA_DIR": str(data),
        "LLMCTL_STATE_DIR": str(home / ".local/state/llmctl"),
        "LLMCTL_CACHE_DIR": str(home / ".cache/llmctl"),
        "LLMCTL_ENGINES_DIR": str(data / "engines"),
    }
