// openai-node: the same calls as driver.py makes, and the same lines.
//
//   node of_node.mjs '{"base_url": …, "cases": [{"name": …, "dialect": …}, …]}'

import OpenAI from "openai";

const MODEL = "gpt-4o-mini";
const PROMPT = "Tell me of the sea.";
const TOOL = { name: "look_up", parameters: { type: "object", properties: { place: { type: "string" } } } };

const { base_url, cases } = JSON.parse(process.argv[2]);

// Whether the user leaves now.
function heard(saw, text, call) {
  if (!text) return false;
  saw.pieces++;
  saw.text += text;
  return saw.pieces === call.leave_after;
}

async function chat(client, call, saw) {
  const chunks = await client.chat.completions.create({
    model: MODEL,
    messages: [{ role: "user", content: PROMPT }],
    stream: true,
    stream_options: { include_usage: true },
    ...(call.tools ? { tools: [{ type: "function", function: TOOL }] } : {}),
  });
  for await (const chunk of chunks) {
    if (chunk.usage) saw.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    for (const { delta, finish_reason } of chunk.choices) {
      for (const part of delta.tool_calls ?? []) saw.tool += part.function.arguments ?? "";
      saw.finish = finish_reason ?? saw.finish;
      if (heard(saw, delta.content, call)) return;
    }
  }
}

async function responses(client, call, saw) {
  const tools = call.tools ? { tools: [{ type: "function", strict: false, ...TOOL }] } : {};
  const events = await client.responses.create({ model: MODEL, input: PROMPT, stream: true, ...tools });
  for await (const event of events) {
    if (event.type === "response.output_text.delta" && heard(saw, event.delta, call)) return;
    if (event.type === "response.function_call_arguments.delta") saw.tool += event.delta;
    if (event.type === "response.completed" || event.type === "response.incomplete") {
      saw.finish = event.response.status;
      saw.usage = [event.response.usage.input_tokens, event.response.usage.output_tokens];
    }
    if (event.type === "error") saw.notes.push(`an \`error\` event: ${event.code}`);
  }
}

for (const call of cases) {
  const saw = {
    name: call.name, pieces: 0, text: "", tool: "", finish: null, usage: null,
    error: null, message: "", status: null, code: null, error_usage: false, seconds: 0, attempts: 0, notes: [],
  };
  const begun = performance.now();
  const client = new OpenAI({
    apiKey: "sk-test",
    baseURL: base_url,
    defaultHeaders: call.headers,
    fetch: (...asked) => (saw.attempts++, fetch(...asked)),
  });
  try {
    await (call.dialect === "chat" ? chat : responses)(client, call, saw);
  } catch (error) {
    saw.error = `openai.${error.constructor.name}`;
    saw.message = error.message;
    saw.status = error.status ?? null;
    saw.code = error.code ?? null;
    saw.error_usage = Boolean(error.error?.usage);
  }
  saw.seconds = (performance.now() - begun) / 1000;
  console.log(JSON.stringify(saw));
}
