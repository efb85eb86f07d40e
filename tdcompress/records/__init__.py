"""Frozen typed results that stages hand on, and the report that is made of them.

A record is data: no behaviour, no paths, no tensors; ``tdcompress.codec`` turns it into JSON and back.
"""
