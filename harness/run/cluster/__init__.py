"""A plan's missing jobs on a cluster, where they are submitted as arrays of tasks.

`controller` submits the jobs and follows them, `ledger` holds the files about what was submitted, `status` says how
each task is, and `task` is what runs on a node.
"""

from harness.run.cluster.controller import Controller
from harness.run.cluster.ledger import Ledger
from harness.run.cluster.status import State, TaskStatus, task_statuses

__all__ = ["Controller", "Ledger", "State", "TaskStatus", "task_statuses"]
