"""Have one model under its alias: find it, else get it from where the profile says, then pin it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.model import ModelRef, alias_for
from llmctl.core.progress import Consent, Progress, Step, StepState
from llmctl.errors import EngineError, Refused, UsageError
from llmctl.library import created, pulled, weights

if TYPE_CHECKING:
    from llmctl.client import Client
    from llmctl.core.pin import Pin
    from llmctl.core.profile import ModelSpec
    from llmctl.system.paths import Paths

CONSENT_BYTES = 100_000_000


@dataclass(frozen=True)
class Pinned:
    """A model that is there, under `alias`. `changed`: something had to be done. `note`: what a person must know.

    `served_digest` is the alias's manifest as /api/tags and /api/ps show it (64 hex digits); it differs from
    the pinned one where the alias carries a context of its own, or where this machine made the manifest.
    `previous` is the pin that this one replaced, where the manifest is another one.
    """

    pin: Pin
    alias: str
    changed: bool
    note: str
    served_digest: str
    previous: Pin | None = None

    @property
    def digests(self) -> frozenset[str]:
        """Every manifest, as 64 hex digits, that stands for these weights in /api/ps."""
        return frozenset({self.served_digest, self.pin.manifest_digest.removeprefix("sha256:")})


@dataclass(frozen=True)
class Obtain:
    """One run of `ensure`: the model asked for, what pins it, and whom to tell."""

    client: Client
    paths: Paths
    environ: Mapping[str, str]
    spec: ModelSpec
    pin: Pin | None
    context: int | None
    engine_version: str
    store: Path | None
    update: bool
    progress: Progress
    consent: Consent

    def run(self) -> Pinned:
        ref = self.ref
        if self.pin is not None:
            self.check_pin(self.pin)
            if not self.update and (found := self.installed(self.pin)) is not None:
                return found
        pin, origin, note = self.get(ref)
        if pin == self.pin and (found := self.installed(pin)) is not None:
            return replace(found, note=note)
        moved = self.pin is not None and self.pin.manifest_digest != pin.manifest_digest
        return replace(self.served(pin, origin, note), previous=self.pin if moved else None)

    @property
    def ref(self) -> ModelRef:
        ref = ModelRef.parse(self.spec.name)
        if ref.private:
            raise UsageError(f"{ref} is one of llmctl's own aliases; give the model's own name", "llmctl list")
        if ref.cloud:
            raise UsageError(f"{ref} runs on ollama.com, not on this machine; llmctl serves local models only")
        return ref

    def check_pin(self, pin: Pin) -> None:
        """Refused where the profile now says something else than what was pinned."""
        if pin.quantization != self.spec.quantization:
            raise Refused(
                f"{pin.name} is pinned as {pin.quantization}, and the profile asks for {self.spec.quantization}",
                f"llmctl rm {pin.name}",
                code="quantization",
            )
        wanted = self.spec.source if self.spec.source in {"registry", "starter"} else "file"
        stands_in = pin.source == "starter" and self.spec.fallback == "starter"
        if pin.source != wanted and not stands_in and not self.update:
            raise Refused(
                f"{pin.name} is pinned from {pin.from_}, and the profile's source is {self.spec.source}",
                f"llmctl pull {pin.name} --update",
                code="drift",
            )

    def installed(self, pin: Pin) -> Pinned | None:
        """The pinned model where the server has it already, under its alias or a name that still has the weights."""
        tags = self.tags()
        alias = self.alias(pin)
        if self.is_pinned(pin, alias, tags):
            self.tell("skipped", f"{pin.name} is there, pinned to {pin.manifest_digest[7:19]}")
            return Pinned(pin, alias, False, self.standing_note(pin), tags[alias.lower()])
        for origin in (pin.alias, pin.served) if pin.source == "registry" else (pin.alias,):
            if self.is_pinned(pin, origin, tags):
                return self.served(pin, origin, self.standing_note(pin))
        return None

    def is_pinned(self, pin: Pin, name: str, tags: Mapping[str, str]) -> bool:
        """Whether `name` stands for the pinned weights."""
        digest = tags.get(name.lower())
        if digest is None:
            return False
        if digest == pin.manifest_digest.removeprefix("sha256:"):
            return True
        # A manifest that a server made itself differs on the next machine: there the weights must match.
        made_here = name == self.alias(pin) if self.context is not None else pin.source != "registry"
        return made_here and weights.digest_of(self.client, name, self.store) == pin.weights_digest

    def tags(self) -> dict[str, str]:
        """Lower-case name to manifest digest: Ollama keeps the case that a name first came in, and ignores it."""
        return {model.name.lower(): model.digest for model in self.client.tags()}

    def alias(self, pin: Pin) -> str:
        """The alias that is served: the pinned one, or its sibling with a context of its own."""
        return pin.alias if self.context is None else f"{pin.alias}-c{self.context}"

    def get(self, ref: ModelRef) -> tuple[Pin, str, str]:
        """Get the model: its pin, the name that has it now, and what a person must know."""
        if self.spec.source == "registry":
            return pulled.get(self, ref)
        made = created.starter_model(self, str(ref)) if self.spec.source == "starter" else created.file_model(self, ref)
        return *made, ""

    def served(self, pin: Pin, origin: str, note: str) -> Pinned:
        """Give `origin` the alias, and see that it is there with the pinned weights."""
        alias = self.alias(pin)
        if origin != pin.alias:
            self.client.copy(origin, pin.alias)
        if self.context is not None:
            for _ in self.client.create(alias, from_=pin.alias, parameters={"num_ctx": self.context}):
                pass
        tags = self.tags()
        if not self.is_pinned(pin, alias, tags):
            raise EngineError(f"the server made {alias} with other weights than {pin.weights_digest}", "llmctl logs")
        self.tell("done", f"{pin.name} pinned to {pin.manifest_digest[7:19]}, served as {alias}")
        return Pinned(pin, alias, True, note, tags[alias.lower()])

    def standing_note(self, pin: Pin) -> str:
        return self.stand_in_note() if pin.source == "starter" and self.spec.source == "registry" else ""

    def stand_in_note(self) -> str:
        name = self.spec.name
        return (
            f"the small starter model stands in for {name}: its registry could not be reached; "
            f"get the real one with: llmctl pull {name} --update"
        )

    def pinned(self, pin: Pin) -> Pin:
        """A new pin, its alias by the rule. An unchanged pin keeps its day, so that the lock does not change."""
        new = replace(pin, alias=alias_for(ModelRef.parse(pin.served), pin.manifest_digest))
        old = self.pin
        if old is not None and replace(new, pinned_at=old.pinned_at, engine=old.engine) == old:
            return old
        return new

    def tell(self, state: StepState, detail: str, completed: int | None = None, total: int | None = None) -> None:
        self.progress(Step(f"model {self.spec.name}", "model", state, detail, completed, total))

    def ask(self, what: str, size_bytes: int, source: str) -> None:
        """Consent before a large download."""
        if size_bytes > CONSENT_BYTES:
            self.consent(f"Download {what}: {size_bytes / 1e6:,.0f} MB from {source}.")

    def now(self) -> str:
        return datetime.now(timezone.utc).isoformat(timespec="seconds")
