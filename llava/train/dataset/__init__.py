"""From records to batches: samples, their order, their rows."""
