"""Decide. Values in, values out: no await, no clock, no randomness, no I/O."""
