"""Artefacts and unfinished trainings as files that travel: packed in numbered parts, and checked before they are published."""
