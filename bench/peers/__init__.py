"""The same turns on what users would pick instead. One driver a peer, each in an environment of its own; the harness
speaks to them in JSON lines, and lets them work in turn, in one run, on one server.
"""
