"""One file per stage, thin: the only place where recipes, artefacts and domain code meet."""
