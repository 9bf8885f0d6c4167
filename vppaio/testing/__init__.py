"""A private VPP for tests and benchmarks, ours and those of programs that run on vppaio.

`vppinstance` starts and stops it, `netns` has its network namespace, `trouble` takes descriptors, memory or VPP away
for a while. Needs root and an installed `vpp`.
"""
