"""`python -m tests.parts`: list the real parts; exit 1 when a required one is missing."""

from __future__ import annotations

import sys

from tests.parts import lines, part, required

print("\n".join(lines()))
sys.exit(any(not part(name).real for name in required()))
