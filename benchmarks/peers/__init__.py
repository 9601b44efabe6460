"""This gateway beside others, on one machine in one run: `python -m benchmarks.peers`."""
