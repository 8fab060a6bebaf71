"""Scorers of whole runs, a file for each family of benchmarks. No torch."""
