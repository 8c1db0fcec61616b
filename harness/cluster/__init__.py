"""A plan's missing jobs on a cluster: what was submitted, what became of it, and what a task does on its node."""

from harness.cluster.controller import Controller
from harness.cluster.ledger import Ledger
from harness.cluster.standing import Standing, State, standings

__all__ = ["Controller", "Ledger", "Standing", "State", "standings"]
