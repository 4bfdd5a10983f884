"""Do. Awaits, never decides: what is to be written is decided in `core`, where it is written is behind `ports`.

Read `turn.py` first.
"""
