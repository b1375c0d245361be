"""How a model is removed: by any spelling of its name, with its aliases, and not without asking where it is pinned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.core.model import PRIVATE_NAMESPACE, ModelRef, alias_for, name_of_alias
from llmctl.errors import NotFound, Refused

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Lock, Pin
    from llmctl.core.progress import Consent
    from llmctl.library.usage import KnownLock


@dataclass(frozen=True)
class Removed:
    """What `remove` deleted from the server, and whether a pin went too."""

    name: str
    deleted: tuple[str, ...]
    unpinned: bool


def removal(
    client: Client, name: str, lock: Lock, consent: Consent, others: Iterable[KnownLock] = ()
) -> tuple[Removed, Lock]:
    """Delete a model with its aliases. Asks first where a lock pins it, this one or one of `others`."""
    pin = lock.meant(name)
    tags = {model.name: model.digest for model in client.tags()}
    doomed = doomed_by(name, pin, tags)
    if not doomed and pin is None:
        raise NotFound(f"no model {name} here", "llmctl list", code="model_not_found")
    holders = [other.path for other in others if _holds(other, doomed)]
    if pin is not None:
        consent(f"{pin.name} is pinned by the profile's lock{_also(holders)}. Remove it and its pin.")
    elif holders:
        consent(f"{name} is pinned by {' and '.join(holders)}. Remove it all the same.")
    if doomed_by(name, pin, tags := {model.name: model.digest for model in client.tags()}) != doomed:
        # Somebody thought about it, and another llmctl was at work meanwhile.
        raise Refused(f"what belongs to {name} changed meanwhile", "the same command again", code="drift")
    loaded = {model.digest for model in client.ps()}
    for each in doomed:
        if tags[each] in loaded:
            # Deleting does not unload: the weights would stay on the GPU.
            client.unload(each)
        client.delete(each)
    return Removed(pin.name if pin else name, tuple(doomed), pin is not None), lock.without(pin.name) if pin else lock


def doomed_by(name: str, pin: Pin | None, installed: Iterable[str]) -> list[str]:
    """In the order in which they go: the alias with a context before the one that it was made of."""
    return sorted(names_of(name, pin, installed), key=lambda each: (-len(each), each))


def _holds(other: KnownLock, doomed: Iterable[str]) -> bool:
    """Whether a lock pins, or pinned when it was last seen, one of the names."""
    names = {name.lower() for name in doomed}
    own = {pin.served.lower() for pin in other.pins if pin.source == "registry"}
    own |= {pin.alias.lower() for pin in other.pins} | {alias.lower() for alias in other.aliases or () if other.unknown}
    return not names.isdisjoint(own)


def _also(holders: list[str]) -> str:
    return f", and by {' and '.join(holders)}" if holders else ""


def names_of(name: str, pin: Pin | None, installed: Iterable[str]) -> set[str]:
    """Of the installed names the plain one and its aliases, those of earlier pins and of other contexts too."""
    plain = pin.served if pin else str(ModelRef.parse(name))
    long = alias_for(ModelRef.parse(plain), "0" * 12).rpartition(":")[0].lower()
    own = None if pin and pin.source != "registry" else plain.lower()

    def belongs(lower: str) -> bool:
        alias = name_of_alias(lower) == plain.lower() or lower.rpartition(":")[0] == long
        return lower == own or (alias and lower.startswith(f"{PRIVATE_NAMESPACE}/"))

    # Ollama shows a name in the case that it first came in, and compares it blind to case.
    return {each for each in installed if belongs(each.lower())}
