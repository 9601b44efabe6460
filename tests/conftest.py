"""What all tests share: property tests print what reproduces a failure, and take no deadline."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "lastchunk",
    deadline=None,  # two busy cores make any deadline a coin toss
    print_blob=True,
    database=None,
    max_examples=400 if os.environ.get("LASTCHUNK_TEST_ALL") else 60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lastchunk")

pytest.register_assert_rewrite("story_judge")
