"""OpenTelemetry: a span a call by the GenAI conventions, without content, at the call's times."""

import json
import subprocess
import sys
from pathlib import Path

from scraped import PROMPT

from lastchunk.simulator import Simulator

PROGRAM = """
import json, sys, openai, lastchunk, httpx
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
url, ledger, prompt = sys.argv[1:]
client = lastchunk.instrument(
    openai.OpenAI(base_url=f"{url}/v1", api_key="sk-secret", max_retries=0), ledger=ledger
)
ask = dict(model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}], stream=True)
fails = {"x-sim": '{"fault": {"kind": "http_500"}}'}
slow = {"x-sim": '{"output_tokens": 40, "pacing_s": 0.02}'}
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("the app's own"):
    with tracer.start_as_current_span("reading"):
        with client.chat.completions.create(**ask) as whole:
            for _ in whole: pass
    with client.chat.completions.create(**ask, extra_headers=slow) as left:
        for n, _ in enumerate(left):
            if n == 6: break
try:
    client.chat.completions.create(**ask, extra_headers=fails)
except openai.APIStatusError:
    pass
lastchunk.close()
told = json.loads(reader.get_metrics_data().to_json())
found = [json.loads(one.to_json()) for one in spans.get_finished_spans()]
print(json.dumps({"spans": found, "metrics": told}))
"""


def test_spans_and_metrics_of_calls_in_process(sim: Simulator, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, sim.url, str(tmp_path / "l.db"), PROMPT],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "zanzibar" not in done.stdout
    assert "sk-secret" not in done.stdout
    told = json.loads(done.stdout)
    spans = {s["attributes"].get("lastchunk.ending", s["name"]): s for s in told["spans"]}
    whole, left, failed = (
        spans[name]["attributes"] for name in ("completed", "caller_left", "upstream_failed")
    )
    assert spans["completed"]["name"] == "chat gpt-4o-mini"
    assert spans["completed"]["kind"] == "SpanKind.CLIENT"
    assert whole["gen_ai.operation.name"] == "chat"
    assert whole["gen_ai.provider.name"] == "openai"
    assert whole["gen_ai.request.model"] == "gpt-4o-mini"
    assert whole["gen_ai.response.model"].startswith("gpt-4o-mini")
    assert whole["gen_ai.usage.output_tokens"] == 40
    assert whole["gen_ai.usage.input_tokens"] > 0
    assert whole["server.address"] == "127.0.0.1"
    assert whole["server.port"] == int(sim.url.rpartition(":")[2])
    assert (whole["lastchunk.basis"], left["lastchunk.basis"]) == ("reported", "counted")
    assert whole["lastchunk.cost"] > 0
    assert "error.type" not in left
    assert failed["error.type"] == "upstream_failed"
    assert spans["upstream_failed"]["status"]["status_code"] == "ERROR"
    app, reading = spans["the app's own"], spans["reading"]
    assert spans["completed"]["parent_id"] == reading["context"]["span_id"]
    assert spans["caller_left"]["parent_id"] == app["context"]["span_id"]
    assert spans["upstream_failed"]["parent_id"] is None
    # Calls have whole milliseconds, cut off: one may seem to begin before its parent, not end after
    # it. A call that its caller left ends when what had arrived is read, and nobody waits for that.
    assert reading["start_time"] <= spans["completed"]["end_time"] <= reading["end_time"]
    assert app["start_time"] <= spans["caller_left"]["end_time"]
    scope = told["metrics"]["resource_metrics"][0]["scope_metrics"][0]
    points = {one["name"]: one["data"]["data_points"] for one in scope["metrics"]}
    counted = {"input": 0, "output": 0}
    for point in points["gen_ai.client.token.usage"]:
        counted[point["attributes"]["gen_ai.token.type"]] += point["sum"]
    assert counted["output"] == sum(
        one["gen_ai.usage.output_tokens"] for one in (whole, left, failed)
    )
    assert sum(point["count"] for point in points["gen_ai.client.operation.duration"]) == 3


def test_without_opentelemetry_nothing_is_missed(sim: Simulator, tmp_path: Path) -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
import lastchunk, openai
client = lastchunk.instrument(openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="sk"),
                              ledger=sys.argv[2])
client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}])
lastchunk.close()
from lastchunk.telemetry.tracing import attached, tracing
assert tracing() is None
with attached({"traceparent": "00-1"}):
    print("well")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, sim.url, str(tmp_path / "l.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


def test_a_calls_trace_is_the_one_its_caller_named(sim: Simulator, tmp_path: Path) -> None:
    program = """
import asyncio, json, sys, httpx2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from lastchunk.gateway.app import Gateway, GatewayOptions
from lastchunk.settings import Settings
from lastchunk.startup import open_books

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
books = open_books(Settings(ledger=sys.argv[2]))

async def main():
    async with Gateway(GatewayOptions(upstream=sys.argv[1], port=0), books) as gateway:
        async with httpx2.AsyncClient() as client:
            headers = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
            url = gateway.url + "/v1/chat/completions"
            await client.post(url, json=body, headers=headers)
            await client.post(url, json=body)

asyncio.run(main())
books.close()
print(json.dumps([json.loads(one.to_json()) for one in spans.get_finished_spans()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, sim.url, str(tmp_path / "l.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)
    assert one["context"]["trace_id"] == "0x" + "a" * 32
    assert one["parent_id"] == "0x" + "b" * 16
    assert two["parent_id"] is None
