"""Warnings: who is told, once, that a budget is nearly used up, or that an account leaves too much.

Alert        what is told
ConductLook  finds accounts above a threshold on their conduct
Watch        looks where limits stand after settlements, on a thread of its own
Webhook      delivers alerts, signed, with retries
"""

from lastchunk.alerting.alert import Alert
from lastchunk.alerting.conduct import ConductLook
from lastchunk.alerting.watch import Told, Watch, Watched
from lastchunk.alerting.webhook import Webhook, webhook_of

__all__ = ["Alert", "ConductLook", "Told", "Watch", "Watched", "Webhook", "webhook_of"]
