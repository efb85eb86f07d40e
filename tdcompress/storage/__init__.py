"""Weights on disk as scipy CSR. No torch."""
