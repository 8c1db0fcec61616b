"""Fixtures with which a test measures throughput or accuracy, and gates it."""
