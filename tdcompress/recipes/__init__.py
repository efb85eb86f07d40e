"""Recipes: their text, what they can say, the shipped ones, and each resolved into experiments with names."""
