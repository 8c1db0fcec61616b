"""Where jobs are started: `local` forks child processes on this machine, `slurm` submits arrays to a cluster."""

from harness.run.launch.local import Crashed, LocalLauncher

__all__ = ["Crashed", "LocalLauncher"]
