"""A run: planned from its recipe, made, laid out in its folder, and read back from there."""
