"""Scores of whole benchmarks, a file for each family of them. Loads no torch."""
