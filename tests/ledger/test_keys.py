"""Keys: shown once, stored as hashes, refused when they are over."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import NOON, Stopwatch

from lastchunk.errors import KeyNotFound
from lastchunk.ledger import Ledger
from lastchunk.ledger.keys import Key, Keyring, KeyTable

HOUR = 3_600_000


@pytest.fixture
def table(url: str) -> Iterator[KeyTable]:
    opened = KeyTable(url)
    yield opened
    opened.close()


def test_a_key_opens_what_it_was_made_for(table: KeyTable) -> None:
    key, text = table.create("acme/search", "web", NOON, models=["gpt-*"], upstreams=["openai"])
    found = Keyring(table.all()).find(text)
    assert found == key
    assert found.is_valid(NOON)
    assert (found.allows_model("gpt-5"), found.allows_model("o3")) == (True, False)
    assert (found.allows_upstream("openai"), found.allows_upstream("azure")) == (True, False)


def test_the_secret_is_nowhere_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    table = KeyTable(str(path))
    _, text = table.create("acme", "web", NOON)
    table.close()
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    secret = text.rpartition("-")[2].encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_revoked_and_an_expired_key_are_known_and_not_valid(table: KeyTable) -> None:
    revoked, _ = table.create("acme", "one", NOON)
    expired, text = table.create("acme", "two", NOON + 1, expires_ms=NOON + HOUR)
    table.revoke(revoked.key_id, NOON + 1)
    table.revoke(revoked.key_id, NOON + HOUR)
    one, two = table.all()
    assert (one.is_valid(NOON), one.is_valid(NOON + 1)) == (True, False)
    assert (two.is_valid(NOON + HOUR - 1), two.is_valid(NOON + HOUR)) == (True, False)
    assert Keyring([two]).find(text) == two
    assert expired.key_id != revoked.key_id


def test_a_rotated_key_opens_until_its_overlap_is_over(table: KeyTable) -> None:
    old, old_text = table.create("acme", "web", NOON, models=["gpt-*"])
    new, new_text = table.rotate(old.key_id, NOON, overlap_ms=HOUR)
    ring = Keyring(table.all())
    before, after = ring.find(old_text), ring.find(new_text)
    assert before is not None
    assert after is not None
    assert (before.is_valid(NOON + HOUR - 1), before.is_valid(NOON + HOUR)) == (True, False)
    assert after.is_valid(NOON + HOUR)
    assert (new.account, new.name, new.models) == (old.account, old.name, old.models)
    with pytest.raises(KeyNotFound, match="create a new one"):
        table.rotate(old.key_id, NOON + HOUR)


def test_a_key_that_is_not_there_is_said_so(table: KeyTable) -> None:
    for act in (table.revoke, table.rotate):
        with pytest.raises(KeyNotFound, match="keys list"):
            act("nobody", NOON)


@given(presented=st.text(max_size=300) | st.from_regex(r"lc-[0-9a-z]{0,12}-[0-9a-z]{0,60}"))
def test_nothing_else_opens(presented: str) -> None:
    key = Key("0123456789", "acme", "web", (), (), NOON, secret_hash="0" * 64)
    assert Keyring([key]).find(presented) is None
    assert Keyring([]).find(presented) is None


def test_keys_live_beside_an_open_ledger(url: str, clock: Stopwatch, table: KeyTable) -> None:
    with Ledger.open(url, clock=clock):
        table.create("acme", "web", NOON)
        assert len(Keyring(table.all())) == 1
