"""Fuzzers: structured mutations of real inputs, none of which may end in a traceback or with the gate's exit code."""
