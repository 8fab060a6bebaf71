"""What people look at: progress, measurements, a stage's record and its report."""
