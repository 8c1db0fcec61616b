"""Benchmarking and reproduction harness for the tables of the DeiT paper (arXiv 2012.12877)."""

__version__ = "0.1.0"
