"""A retail agent, through three frameworks, and the shop that it works for. README.md says how to start it."""
