"""What operators watch: made from settlements that are durable. Knows no ledger, no gateway.

Observer      what is told of calls that were opened, settled and corrected
Metrics       Prometheus
Tracing       OpenTelemetry, where it is installed
CallLines     one log line a settled call
"""

from lastchunk.telemetry.observer import Difference, Observer, Observers

__all__ = ["Difference", "Observer", "Observers"]
