"""Latency, measured so that a claim can be trusted: `bench.benchmark.benchmark` is the way in.

Each question has a file of its own: what is timed (`backends/`, `workloads/`), how a call is timed (`timing`), and what the
numbers mean (`statistics`). A fresh process runs `worker`, which `launch` starts. `host` says where it ran, `budget` how much
time it may take. Nothing here imports torch.
"""
