"""Watching one call: bytes in, an observation out. No I/O."""
