"""Known faults of Ollama's releases that let somebody in, or take a wrong file for a right one.

Each row says where it is from and when that was read. A row is here only where an entry of the Go vulnerability
database (pkg.go.dev/vuln) or the code itself was read, and where it names the release that mends it. Left out, as no
source that was read confirms them: CVE-2024-39719, -39721, -39722, CVE-2024-7773, CVE-2025-15514, CVE-2025-66959 and
-66960; CVE-2025-1975, whose mending release only a third party names; those of the updater for Windows; and
CVE-2025-63389, that the API asks for no password, which is so by design in every release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DATABASE = "https://pkg.go.dev/vuln/list (github.com/ollama/ollama)"


@dataclass(frozen=True)
class Known:
    """`fixed` is the first release without it; `last` the last one that is known to have it, where no release is named
    that mends it. `reach`: network, whoever may send a request; model, whoever makes a model that is pulled or created
    here; store, what is on this machine's own disk."""

    id: str
    what: str
    reach: Literal["network", "model", "store"]
    source: str
    read: str
    fixed: str | None = None
    last: str | None = None


KNOWN = (
    Known("CVE-2024-28224", "DNS rebinding reaches the API", "network", DATABASE, "2026-08", "0.1.29"),
    Known("CVE-2024-37032", "a digest that is a path: code of others runs", "network", DATABASE, "2026-08", "0.1.34"),
    Known("CVE-2025-44779", "a pull deletes files", "network", DATABASE, "2026-08", "0.1.34"),
    Known("CVE-2024-39720", "a create reads out of bounds", "network", DATABASE, "2026-08", "0.1.46"),
    Known("CVE-2024-45436", "a ZIP is unpacked outside its folder", "network", DATABASE, "2026-08", "0.1.47"),
    Known("CVE-2024-12886", "a pull ends in no memory", "model", DATABASE, "2026-08", "0.4.0"),
    Known("CVE-2024-12055", "a GGUF file ends the server", "model", DATABASE, "2026-08", last="0.3.14"),
    Known("CVE-2025-0312", "a GGUF file ends the server", "model", DATABASE, "2026-08", last="0.3.14"),
    Known("CVE-2025-0315", "a GGUF file takes all memory", "model", DATABASE, "2026-08", last="0.3.14"),
    Known("CVE-2025-0317", "a GGUF file ends the server", "model", DATABASE, "2026-08", last="0.3.14"),
    Known("CVE-2024-8063", "a GGUF file ends the server", "model", DATABASE, "2026-08", last="0.3.3"),
    Known(
        "CVE-2025-51471",
        "the token of a registry goes to another host",
        "model",
        "ollama commit 7601f0e93, server/auth.go:59-62",
        "2026-08",
        "0.14.3",
    ),
    Known(
        "CVE-2026-7482", "a create reads other people's prompts from memory", "network", DATABASE, "2026-08", "0.17.1"
    ),
    Known("CVE-2026-5530", "a pull asks inner servers", "network", DATABASE, "2026-08", last="0.18.1"),
    Known("CVE-2026-7020", "a tensor's name is a path (MLX only)", "model", DATABASE, "2026-08", last="0.20.2"),
    Known(
        "ollama 4138e853d",
        "a blob that a manifest names twice is taken without its hash",
        "model",
        "ollama commit 4138e853d",
        "2026-08",
        "0.32.10",
    ),
)


def of(version: str) -> tuple[Known, ...] | None:
    """What the release `version` has; None for what is no version."""
    own = key(version)
    if own is None:
        return None
    return tuple(known for known in KNOWN if has(known, own))


def has(known: Known, own: tuple[int, int, int]) -> bool:
    bound = key(known.fixed or known.last or "")
    assert bound is not None
    return own < bound if known.fixed else own <= bound


def key(version: str) -> tuple[int, int, int] | None:
    from llmctl.core.engine import VERSION

    match = VERSION.match(version)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))
