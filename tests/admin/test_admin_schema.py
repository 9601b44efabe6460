"""Generated requests, good and bad: no answer is a fault of ours or outside of the document."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from admin_stage import AUTHORIZED, Admin
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from lastchunk.admin import openapi_document
from lastchunk.admin.operation import NoQuery
from lastchunk.admin.operations import OPERATIONS

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 8
"""Of each operation and mode: two dozen rounds, some 15 s together."""

DOCUMENT = schemathesis.openapi.from_dict(openapi_document())


ASKED = [one for one in OPERATIONS if one.query is not NoQuery or one.body or "{id}" in one.path]
"""Nothing can be wrong with the others, nor differ."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.name)
def test_answers_are_as_the_document_says(
    one_admin: Admin, operation: Any, mode: GenerationMode
) -> None:
    checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS
    strategy = DOCUMENT[operation.path][operation.method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(case=strategy)
    def ask(case: Any) -> None:
        answer = case.call(base_url=one_admin.url, headers=AUTHORIZED)
        case.validate_response(answer, checks=checks)

    ask()
