"""A provider that misbehaves on purpose and keeps the true bill.

A `Script` says what one call does, its `Fault` what goes wrong; `Simulator` serves calls in a
thread and knows the `BilledCall` of each; `render` gives the same bodies without a socket.
"""

from lastchunk.simulator.answer import Rendered, render
from lastchunk.simulator.bill import BilledCall
from lastchunk.simulator.running import Simulator, serve_forever
from lastchunk.simulator.script import Fault, Script, draw_script, read_script, write_script

__all__ = [
    "BilledCall",
    "Fault",
    "Rendered",
    "Script",
    "Simulator",
    "draw_script",
    "read_script",
    "render",
    "serve_forever",
    "write_script",
]
