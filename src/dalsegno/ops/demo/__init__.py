"""The demonstration: a fleet that is hurt while it answers, and a table of what was seen. Everything in it is real."""
