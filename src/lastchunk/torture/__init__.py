"""The fault matrix: every fault at every moment, through every door, beside the true bill.

`matrix` says which cells there are and what must come of each, `faults` what happens in one,
`caller` is the process that makes the calls, `runner` plays cells, `judge` compares.
"""
