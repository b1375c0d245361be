"""The names that a shell completes. Asked at each Tab: quick, silent, and content with what it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    import typer

    from llmctl.env import Env

ANSWER_SECONDS = 0.3
ALIASES = "llmctl/"


def profile_names() -> list[str]:
    """The shipped profiles. A profile of one's own is a file, which the shell completes itself."""
    from llmctl.system.shipped import shipped_names

    return shipped_names()


def model_names(ctx: typer.Context) -> list[str]:
    """What one may call a model here: as the last `up` and the lock have it, and as the server does.

    The aliases of pinned weights are llmctl's own business and are left out.
    """
    env: Env = ctx.obj
    sources: tuple[Callable[[], Iterable[str]], ...] = (
        lambda: [model.name for model in env.state.models] if env.state else [],
        lambda: pinned(env, ctx.params.get("profile")),
        lambda: installed(env),
    )
    found: dict[str, None] = {}
    for source in sources:
        try:
            found.update(dict.fromkeys(source()))
        except (LlmctlError, OSError, ValueError):
            # A broken profile or lock is for `up` to report, not for a Tab.
            continue
    return [name for name in found if not name.startswith(ALIASES)]


def pinned(env: Env, ref: str | None) -> list[str]:
    """The names in the lock of the profile in force, and those in the profile itself."""
    from llmctl.library import lock_file
    from llmctl.system.shipped import lock_path, resolve

    profile = resolve(ref, env.paths, env.environ, env.server.last_profile())
    if profile is None:
        return []
    pins = lock_file.read(lock_path(profile, env.paths)).models
    return [model.name for model in profile.models] + [pin.name for pin in pins]


def installed(env: Env) -> list[str]:
    """What the server has, if it says so at once."""
    from llmctl.client import Client
    from llmctl.core.address import choose_address

    url = env.state.base_url if env.state else choose_address(env.environ, None).url
    client = Client(url, answer_seconds=ANSWER_SECONDS)
    return within(ANSWER_SECONDS, lambda: [model.name for model in client.tags()]) or []


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call`, or None when it fails or takes longer: a name server or a firewall may hold it up."""
    import threading

    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except (LlmctlError, OSError, ValueError, KeyError):
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
