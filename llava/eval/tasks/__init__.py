"""The score of a whole run, a file for each family of benchmarks."""
