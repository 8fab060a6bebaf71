"""What people look at after an evaluation: the report, its plots, and the comparison of two runs."""
