"""Requests that are turned down before anything is generated, in OpenAI's shape of an error."""

from __future__ import annotations

from lastchunk.simulator.answer import Visit
from lastchunk.simulator.bill import BilledCall
from lastchunk.simulator.provider_counts import Endpoint, Json
from lastchunk.simulator.script import Fault, Script


class Refusal(Exception):
    """An HTTP error answer; nothing is billed for it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: Json = {"message": message, "type": kind, "param": param, "code": code}
        self.headers = headers or {}


def malformed() -> Refusal:
    return Refusal(400, "We could not parse the JSON body of your request.")


def no_model() -> Refusal:
    return Refusal(400, "you must provide a model parameter")


def unknown_model(model: str) -> Refusal:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return Refusal(404, message, code="model_not_found")


def not_found(what: str) -> Refusal:
    return Refusal(404, f"Invalid URL ({what})")


def unreadable(reason: str) -> Refusal:
    return Refusal(400, f"Invalid request: {reason}", code="invalid_value")


def bad_script(message: str) -> Refusal:
    return Refusal(400, message, param="x-sim", code="bad_script")


def by_script(script: Script, body: Json) -> Refusal | None:
    """The refusal of a server that checks each option of a stream."""
    options = body.get("stream_options")
    named = isinstance(options, dict) and "continuous_usage_stats" in options
    if script.continuous_usage != "rejected" or not named:
        return None
    message = "Extra inputs are not permitted: stream_options.continuous_usage_stats"
    return Refusal(422, message, param="stream_options.continuous_usage_stats")


def by_fault(fault: Fault, body: Json) -> Refusal | None:
    """The refusal that a fault demands, if it is one that refuses."""
    soon = {"retry-after-ms": "1"}  # SDKs wait that long, and tests wait with them
    match fault.kind:
        case "http_500":
            message = "The server had an error while processing your request."
            return Refusal(500, message, kind="server_error", headers=soon)
        case "http_429":
            message = "Rate limit reached in the simulation."
            return Refusal(429, message, kind="tokens", code="rate_limit_exceeded", headers=soon)
        case "reject_stream_options" if "stream_options" in body:
            message = "Unrecognized request argument supplied: stream_options"
            return Refusal(400, message)
        case _:
            return None


def unbilled(refusal: Refusal, number: int, endpoint: Endpoint, visit: Visit) -> BilledCall:
    """A refused request stands in the bill, so that attempts can be counted, but costs nothing."""
    return BilledCall(
        call=number,
        at=visit.at,
        endpoint=endpoint,
        model_asked="",
        model_served="",
        service_tier="",
        streamed=False,
        status=refusal.status,
        billed=False,
        prompt_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        end_of_turn=0,
        output_ids=(),
        delivered_tokens=0,
        ended="refused",
        finish_reason=None,
        usage={},
        usage_sent=False,
        include_usage=False,
        retry_count=visit.retry_count,
        tag=visit.tag,
        response_id=None,
        script=None,
    )
