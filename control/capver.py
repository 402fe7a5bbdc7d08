"""Capability versions: one integer per client build, and what we ask of it.

Source: tailscale tailcfg/tailcfg.go (CapabilityVersion); control.md §9.
"""

MINIMUM = 113  # 1.80, January 2025: the oldest client we promise to serve
MINIMUM_RELEASE = "1.80"
REGISTER_429 = 137  # from here a 429 with Retry-After on register is honoured


def too_old(version: int) -> bool:
    return version < MINIMUM
