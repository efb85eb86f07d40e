"""From steps to calls of kernels: a memory layout per tensor, a kernel per layer, the tables."""
