"""The command line."""

import sys
import traceback

try:
    from harness.cli.main import main
except Exception:  # noqa: BLE001 -- Python would end with 1, the code of a regression
    traceback.print_exc()
    print("error: the harness cannot be loaded, as the lines above say; install it and what it needs", file=sys.stderr)
    sys.exit(70)

__all__ = ["main"]
