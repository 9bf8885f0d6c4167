"""A process whose descriptors or address space are limited, from outside, at the moments when VCL needs more of them.

`python -m tests.limits` sweeps all limits; tests/vpp/test_limits.py has a few of each kind.
"""
