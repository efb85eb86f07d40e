"""Verbs with verbs of their own: parse, call, print, as ``cli.py`` does for the others."""
