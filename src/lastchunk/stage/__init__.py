"""What the demo and the fault matrix are played on: processes, callers' ears, the true bill."""
