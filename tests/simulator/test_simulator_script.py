import pytest
from sim_http import CHAT, RESPONSES

from lastchunk.simulator import Fault, Script, draw_script, read_script, render, write_script
from lastchunk.simulator.script import BadScript


def test_a_script_survives_its_header() -> None:
    script = Script(
        kind="mixed",
        output_tokens=7,
        usage_style="twice",
        pacing_s=0.5,
        fault=Fault("rst", at="tokens:3", count=2),
    )
    assert read_script(write_script(script)) == script
    assert write_script(Script()) == "{}"


def test_a_header_changes_only_what_it_names() -> None:
    default = Script(language="german", output_tokens=9)
    assert read_script('{"output_tokens": 3}', default) == Script(
        language="german", output_tokens=3
    )


def test_a_header_can_start_from_a_drawn_script() -> None:
    drawn = read_script('{"random": 11, "fault": null}')
    assert drawn.fault is None
    assert drawn.seed == draw_script(11).seed


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"colour": 1}', "colour"),
        ('{"kind": "song"}', "song"),
        ('{"output_tokens": -1}', "output_tokens"),
        ('{"fault": {"kind": "rst", "at": "sometime"}}', "sometime"),
        ('{"fault": {"kind": "rst", "at": -4}}', "-4"),
        ('{"tokens_per_chunk": 0}', "tokens_per_chunk"),
        ('{"choices": 0}', "choices"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_by_name(header: str, named: str) -> None:
    with pytest.raises(BadScript, match=named):
        read_script(header)


def test_draws_are_the_same_for_the_same_seed_and_vary_with_the_number() -> None:
    assert draw_script(5, 2) == draw_script(5, 2)
    assert len({draw_script(5, number).seed for number in range(20)}) == 20


def test_every_drawn_script_can_be_rendered_and_billed_at_any_cut() -> None:
    faults = set()
    for seed in range(150):
        script = draw_script(seed)
        faults.add(script.fault.kind if script.fault else None)
        chat = render(script, CHAT)
        responses = render(script, RESPONSES, endpoint="responses")
        for body in (chat, responses):
            for size in (0, 1, len(body.body) // 2, len(body.body)):
                billed = body.billed_at(size)
                assert billed.delivered_tokens <= len(billed.output_ids)
    assert len(faults) > 10
