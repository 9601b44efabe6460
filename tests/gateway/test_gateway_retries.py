"""A client's own retry is another attempt of the same call, and of no other."""

import uuid

from gateway_stage import STREAMED, Stage, body_of
from raw_http import exchange

from lastchunk.ledger import CallFilter
from lastchunk.simulator import Script


def test_two_accounts_that_send_the_same_body_keep_their_retries_apart(stage: Stage) -> None:
    body = body_of(STREAMED | {"user": uuid.uuid4().hex})
    headers = stage.scripted(Script(output_tokens=3)) | {"Authorization": "Bearer sk-shared"}
    accounts = [f"{stage.name}/{name}" for name in ("ann", "bob")]
    for retry in ("0", "1"):
        for account in accounts:
            labels = {"x-lastchunk-account": account, "x-stainless-retry-count": retry}
            told = exchange(
                stage.gateway.port, "POST", "/v1/chat/completions", headers | labels, body
            )
            assert told.whole
    for account in accounts:
        wanted = CallFilter(account=account)
        first, second = stage.reader.calls(wanted, newest_first=False)
        assert first.call.attempt_of is None
        assert second.call.attempt_of == first.call_id
