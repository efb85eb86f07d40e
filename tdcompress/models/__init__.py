"""One file per architecture; `registry.MODELS` names them all."""
