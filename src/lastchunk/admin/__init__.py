"""The admin API: keys, limits, calls and reports over HTTP, on a listener of its own.

Operation     one endpoint: its types, and the function that answers it
OPERATIONS    all of them; the routes and the OpenAPI document are made from these
Sources       what they read and change
AdminServer   the listener: who may ask, how long it may take, the shape of errors
"""

from lastchunk.admin.app import AdminOptions, AdminServer
from lastchunk.admin.openapi import openapi_document
from lastchunk.admin.sources import Sources

__all__ = ["AdminOptions", "AdminServer", "Sources", "openapi_document"]
