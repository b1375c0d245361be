"""The entry point. `--version` is answered before anything else is imported."""

from __future__ import annotations

import gc
import sys

# Modules make many objects and no garbage. At Python's own threshold a start spends a tenth of its time looking for it.
COLLECT_AFTER_OBJECTS = 50_000


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if arguments == ["--version"]:
        from llmctl import __version__

        sys.stdout.write(f"llmctl {__version__}\n")
        return 0
    gc.set_threshold(COLLECT_AFTER_OBJECTS)
    try:
        from llmctl import cli

        return cli.main(arguments)
    except KeyboardInterrupt:
        # Pressed while modules were still being imported; later, cli.main says so itself.
        return 130
    finally:
        # The interpreter's last collection, at exit, would walk every object of every module: 15 ms for nothing.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
