"""`lastchunk keys`, as an operator uses it."""

from cli_running import Cli

from lastchunk.ledger.keys import Keyring, KeyTable


def test_a_key_is_shown_once_and_opens(cli: Cli) -> None:
    made = cli("keys", "create", "acme/search", "--name", "web", "--model", "gpt-*")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    table = KeyTable("lastchunk.db")
    key = Keyring(table.all()).find(text)
    table.close()
    assert key is not None
    assert (key.account, key.name, key.models) == ("acme/search", "web", ("gpt-*",))
    assert "only now" in made.stderr
    listed = cli.text("keys", "list")
    assert key.key_id in listed
    assert text.rpartition("-")[2] not in listed


def test_keys_are_listed_with_their_state(cli: Cli) -> None:
    cli.text("keys", "create", "acme", "--expires", "90d")
    cli.text("keys", "create", "acme/web")
    first, second = (row["key_id"] for row in cli.json("keys", "list")["keys"]["rows"])
    cli.text("keys", "rotate", first, "--overlap", "1h")
    revoked = cli.text("keys", "revoke", second)
    assert "acme/web" in revoked
    states = {row["key_id"]: row["state"] for row in cli.json("keys", "list")["keys"]["rows"]}
    assert states[first] == "valid until rotated"
    assert states[second] == "revoked"
    assert sorted(states.values()) == ["revoked", "valid", "valid until rotated"]


def test_no_ledger_is_made_by_looking_for_keys(cli: Cli) -> None:
    for arguments in (("list",), ("revoke", "nobody"), ("rotate", "nobody")):
        result = cli("keys", *arguments)
        assert result.exit_code == 2
        assert "there is no ledger at" in result.output


def test_what_cannot_be_is_said_in_one_line(cli: Cli) -> None:
    made = cli("keys", "create", "acme")
    whole = made.stdout.strip().splitlines()[-1]
    shown = cli("keys", "revoke", whole)
    assert shown.exit_code == 2
    assert "it is secret" in shown.output
    assert whole.rpartition("-")[2] not in shown.output
    for arguments, said in (
        (("create", "/acme"), "no account path"),
        (("create", "acme/*"), "no account path"),
        (("create", "acme", "--expires", "soon"), "no age"),
        (("revoke", "nobody"), "there is no key nobody"),
    ):
        result = cli("keys", *arguments)
        assert result.exit_code == 2
        assert said in result.output
