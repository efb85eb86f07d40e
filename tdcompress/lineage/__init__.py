"""From an artefact back to what it was made from: its training's settings, its data, its network."""
