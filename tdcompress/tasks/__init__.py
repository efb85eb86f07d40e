"""Tasks: what is specific to a learning problem, so that loop, stages, runs and reports know none."""
