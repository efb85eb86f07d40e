"""Exact physical shrinking of any network, by a channel graph over the exported program."""
