"""Where artefacts are kept: a folder, or object storage behind a folder that is its cache."""
