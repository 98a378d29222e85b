"""Bundles: a stopped lab as one file with its box and keys, from which the same lab is made elsewhere."""
