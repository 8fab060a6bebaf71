"""Scorers of the benchmarks: pure functions from an answer and its references to a ``Verdict``. Loads no torch."""
