"""Operators evaluated on constants, with numpy, when a model is loaded.

Two things need it: shape arithmetic of dynamic batches, and packed files, whose weights come out of a decoder made of standard
operators (Cast, Equal, Not, Add, CumSum, Gather, Where, ScatterElements, Split, Reshape). A constant subgraph may
hold any of their operators; sizes are checked before memory is taken.
"""
