"""Latency, measured so that a claim can be trusted: `bench.benchmark.benchmark` is the way in.

Separate axes, one file each: what is timed (`backends/`), how a call is timed (`timing`), what a fresh process runs
(`worker`), how it is started (`launch`), what the numbers mean (`statistics`), where it ran (`host`), and how much time
it may take (`budget`). Nothing here imports torch.
"""
