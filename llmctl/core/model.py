"""Model names as Ollama reads them, and llmctl's private names for pinned weights. See docs/names.md."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from llmctl.errors import UsageError

# ollama v0.34.0 types/model/name.go: the defaults (:38) and what each part may hold (:100, :344).
DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
PRIVATE_NAMESPACE = "llmctl"
MAXIMUM_PART = 80
MAXIMUM_HOST = 350

_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]{1,5})?"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
}
_ALLOWED = (
    "a name is [host/][namespace/]model[:tag] in letters, digits, '_', '-' and '.', each part up to 80 "
    "characters, for example qwen3:8b-q4_K_M or hf.co/user/repo:Q4_K_M"
)
_HINT = "llmctl pull --help"
_ESCAPES = {"_": "__", "/": "_.", ":": "_-"}
_UNESCAPES = {escape[1]: plain for plain, escape in _ESCAPES.items()}
_KEPT_OF_LONG = 67


@dataclass(frozen=True)
class ModelRef:
    """A full model name. `str()` is the short form, which /api/tags shows: defaults left out, tag kept."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a name as Ollama does. UsageError says what is allowed."""
        _refuse_lookalikes(text)
        body, tag = text, DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):
            body, _, tag = text.rpartition(":")
        parts = body.split("/")
        if len(parts) > 3:
            raise UsageError(f"not a model name: {text!r} has {len(parts) - 1} slashes; {_ALLOWED}", _HINT)
        defaults = [DEFAULT_HOST, DEFAULT_NAMESPACE]
        host, namespace, model = [*defaults[: 3 - len(parts)], *parts]
        ref = cls(host, namespace, model, tag)
        ref._check(text)
        return ref

    def _check(self, text: str) -> None:
        for kind, pattern in _PARTS.items():
            part: str = getattr(self, kind)
            limit = MAXIMUM_HOST if kind == "host" else MAXIMUM_PART
            if not pattern.fullmatch(part) or len(part) > limit:
                found = f"the {kind} {part!r}" if part else f"an empty {kind}"
                raise UsageError(f"not a model name: {text!r} has {found}; {_ALLOWED}", _HINT)
        port = self.host.partition(":")[2]
        if port and not 0 < int(port) < 65536:
            raise UsageError(f"not a model name: {text!r} has the port {port}; {_ALLOWED}", _HINT)

    def __str__(self) -> str:
        # DisplayShortest (name.go:244): a foreign host keeps its namespace, even `library`.
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    @property
    def full(self) -> str:
        """Every part: host/namespace/model:tag."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def loopback(self) -> bool:
        """Whether its registry is on this machine. Only there llmctl speaks plain http."""
        name = self.host.partition(":")[0].lower()
        return (
            name == "localhost" or name.endswith(".localhost") or re.fullmatch(r"127(\.\d{1,3}){3}", name) is not None
        )

    @property
    def private(self) -> bool:
        """Whether it is one of llmctl's own aliases."""
        return self.host.lower() == DEFAULT_HOST and self.namespace.lower() == PRIVATE_NAMESPACE

    @property
    def cloud(self) -> bool:
        """Whether Ollama would run it on ollama.com (v0.34.0 internal/modelref): `:cloud` and `…-cloud`."""
        tag = self.tag.lower()
        return tag == "cloud" or tag.endswith("-cloud")


def _refuse_lookalikes(text: str) -> None:
    """Say what the mistake is where a person means something else than a name."""
    if "@" in text:
        raise UsageError(
            f"not a model name: {text!r} names a digest, which Ollama cannot pull; "
            "give the tag, and llmctl pins the digest that it stands for",
            _HINT,
        )
    if "://" in text:
        raise UsageError(f"not a model name: {text!r} is a URL; leave out the scheme", _HINT)
    if looks_like_path(text) or "\\" in text:
        raise UsageError(f"not a model name: {text!r} is a path; {_ALLOWED}", _HINT)


def moved(asked: str, digest: str, pinned: str) -> str:
    """What to know of a plain name that no longer stands for the pin of the model `pinned`. `digest` is what it has."""
    return (
        f"a client that asks the server for {asked} gets {digest.removeprefix('sha256:')[:12]}, which is not what is "
        f"pinned; put the pinned one back: llmctl pull {pinned}"
    )


def looks_like_path(text: str) -> bool:
    """Whether a person who typed this means a file: it starts as a path, or ends in .gguf without a tag."""
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."}:
        return True
    return text.lower().endswith(".gguf") and ":" not in text


def escape(name: str) -> str:
    """A model name as one part of another name: `_` becomes `__`, `/` becomes `_.`, `:` becomes `_-`.

    Longer than Ollama's 80 characters: the first 67, `_h`, and 10 hex digits of the name's sha256.
    """
    escaped = "".join(_ESCAPES.get(character, character) for character in name)
    if len(escaped) <= MAXIMUM_PART:
        return escaped
    kept = escaped[:_KEPT_OF_LONG]
    if _cuts_escape(kept):
        # Half an escape before `_h` would read as another escape.
        kept = kept[:-1]
    return f"{kept}_h{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _cuts_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("_"))) % 2 == 1


def unescape(part: str) -> str | None:
    """The name that `escape` was given; None where it was too long to keep, or is no such part."""
    name, position = [], 0
    while position < len(part):
        character = part[position]
        if character == "_":
            character = _UNESCAPES.get(part[position + 1 : position + 2], "")
            if not character:
                return None
            position += 1
        name.append(character)
        position += 1
    return "".join(name)


def alias_for(ref: ModelRef, manifest_digest: str, context: int | None = None) -> str:
    """llmctl's private name for these weights: `llmctl/<escaped>:<12 hex>`, `-c<context>` where asked.

    `manifest_digest` is 64 hex digits, with or without `sha256:`.
    """
    tag = manifest_digest.removeprefix("sha256:")[:12]
    suffix = f"-c{context}" if context is not None else ""
    return f"{PRIVATE_NAMESPACE}/{escape(str(ref))}:{tag}{suffix}"


def name_of_alias(alias: str) -> str | None:
    """The model name inside an alias; None for another name, and for one that was too long to keep."""
    match = re.fullmatch(rf"{PRIVATE_NAMESPACE}/([^/:]+):[0-9a-f]{{12}}(-c[0-9]+)?", alias)
    return unescape(match.group(1)) if match else None
