"""One file per training method; `METHODS` is the registry."""
