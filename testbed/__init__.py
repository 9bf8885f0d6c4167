"""The private VPP that tests and benchmarks share: neither imports anything from the other, both import from here."""
