"""Native kernels for CPUs: quantized matrices, attention over the paged KV cache, whole decode steps."""
