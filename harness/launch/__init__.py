"""Where a child process runs: on this machine."""

from harness.launch.local import Crashed, LocalLauncher

__all__ = ["Crashed", "LocalLauncher"]
