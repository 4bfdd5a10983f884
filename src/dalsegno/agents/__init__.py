"""Think: a user's agent behind one adapter, one file per SDK. Nothing here stores, leases or listens."""
