"""Assemble: configuration, the composition root, processes, the command line. Decides nothing about sessions."""
