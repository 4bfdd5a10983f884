"""A simulated world: the real core and runtime in one deterministic loop, with faults between them and their tiers."""
