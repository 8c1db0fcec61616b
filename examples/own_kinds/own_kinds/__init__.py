"""Kinds of job and a model of its own, for deit-harness."""
