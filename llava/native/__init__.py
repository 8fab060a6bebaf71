"""Compiled arithmetic for CPUs: matrices in 8 and 4 bits, attention over blocks, whole decoder steps."""
