"""Stores of other frameworks, read only: each module loads its framework, and is loaded when it is asked for."""
