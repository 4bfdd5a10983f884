"""One file a peer: the turn as that peer's documentation would have it written. No file here imports another one."""
