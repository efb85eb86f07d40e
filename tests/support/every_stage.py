"""Recipes that between them take every stage and every table but those of a translator, as text."""

WEIGHTS = """
name = "keys"
[data]
name = "digits"
[model]
name = "digits_cnn"
[sparsity]
method = "targeted"
gamma = 0.5
[prune]
fraction = 0.5
[finetune]
epochs = 1
[analyse]
bins = 8
"""
UNITS = WEIGHTS.replace("[analyse]\nbins = 8\n", 'after = "shrink"\n').replace("gamma", 'granularity = "unit"\ngamma')
