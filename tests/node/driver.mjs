// Every way in which a program leaves a stream of the openai SDK, each against the gateway.
//
//   node driver.mjs '{"base_url": …, "provider": …, "cases": {"break_out": {"script": …, "options": {}}, …}}'
//
// `provider` is the simulator's root. Prints one JSON object: what the program itself saw, by case. The last case may be `process_exit`.

import OpenAI from "openai";

const SEEN = 5;
const { base_url, provider, cases } = JSON.parse(process.argv[2]);
const messages = [{ role: "user", content: "Tell me of the sea." }];
const chat = { model: "gpt-4o-mini", messages, stream: true };
const tools = [
  {
    type: "function",
    function: { name: "look_up", parameters: { type: "object", properties: { place: { type: "string" } } } },
  },
];
const held = []; // what must not be collected before the process ends

function clientFor(name, { script, options }) {
  return new OpenAI({
    apiKey: "sk-test",
    baseURL: base_url,
    maxRetries: 0,
    defaultHeaders: { "x-lastchunk-account": name, "x-sim-tag": name, "x-sim": script },
    ...options,
  });
}

// Until the provider holds this case's answer still: whoever leaves then leaves what was begun.
async function heldStill(name) {
  for (;;) {
    const { held } = await (await fetch(`${provider}/_open`)).json();
    if (held.includes(name)) return;
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function readSome(stream) {
  let seen = 0;
  for await (const _ of stream) if (++seen === SEEN) break;
  return seen;
}

async function readAll(stream) {
  let chunks = 0, usage = null, finish = null;
  for await (const chunk of stream) {
    chunks++;
    usage = chunk.usage ?? usage;
    finish = chunk.choices?.[0]?.finish_reason ?? finish;
  }
  return { chunks, usage: usage && usage.completion_tokens, finish };
}

const WAYS = {
  async read_to_end(client) {
    return readAll(await client.chat.completions.create(chat));
  },
  async usage_asked_for(client) {
    const asked = { ...chat, stream_options: { include_usage: true } };
    return readAll(await client.chat.completions.create(asked));
  },
  async not_streamed(client) {
    const answer = await client.chat.completions.create({ ...chat, stream: false });
    return { usage: answer.usage.completion_tokens };
  },
  async break_out(client) {
    return { chunks: await readSome(await client.chat.completions.create(chat)) };
  },
  async throw_in_loop(client) {
    const stream = await client.chat.completions.create(chat);
    let seen = 0;
    for await (const _ of stream) if (++seen === SEEN) throw new Error("the program's own");
  },
  async controller_abort(client) {
    const stream = await client.chat.completions.create(chat);
    let chunks = 0;
    for await (const _ of stream) if (++chunks === SEEN) stream.controller.abort();
    return { chunks };
  },
  async signal_abort(client) {
    const leaving = new AbortController();
    const stream = await client.chat.completions.create(chat, { signal: leaving.signal });
    let chunks = 0;
    for await (const _ of stream) if (++chunks === SEEN) leaving.abort();
    return { chunks };
  },
  async signal_before_headers(client) {
    const leaving = new AbortController();
    const asked = client.chat.completions.create(chat, { signal: leaving.signal });
    await Promise.race([asked, heldStill("signal_before_headers")]);
    leaving.abort();
    await asked;
  },
  async client_timeout(client) {
    await client.chat.completions.create(chat);
  },
  async helper_final_completion(client) {
    const answer = await client.chat.completions.stream(chat).finalChatCompletion();
    return { finish: answer.choices[0].finish_reason };
  },
  async helper_abort(client) {
    const stream = client.chat.completions.stream(chat);
    let seen = 0;
    stream.on("content", () => ++seen === SEEN && stream.abort());
    await stream.done();
  },
  async helper_break(client) {
    return { chunks: await readSome(client.chat.completions.stream(chat)) };
  },
  async tool_calls(client) {
    const answer = await client.chat.completions.stream({ ...chat, tools }).finalChatCompletion();
    return { finish: answer.choices[0].finish_reason };
  },
  async tool_calls_break(client) {
    return { chunks: await readSome(await client.chat.completions.create({ ...chat, tools })) };
  },
  async responses_stream(client) {
    const stream = client.responses.stream({ model: chat.model, input: messages[0].content });
    for await (const _ of stream);
    return { usage: (await stream.finalResponse()).usage.output_tokens };
  },
  async responses_break(client) {
    const asked = { model: chat.model, input: messages[0].content, stream: true };
    return { chunks: await readSome(await client.responses.create(asked)) };
  },
  async responses_abort(client) {
    const stream = client.responses.stream({ model: chat.model, input: messages[0].content });
    let seen = 0;
    stream.on("response.output_text.delta", () => ++seen === SEEN && stream.abort());
    await stream.done();
  },
  async completions_break(client) {
    const asked = { model: "gpt-3.5-turbo-instruct", prompt: "The sea", stream: true };
    return { chunks: await readSome(await client.completions.create(asked)) };
  },
  async tee(client) {
    const [one, other] = (await client.chat.completions.create(chat)).tee();
    const [mine, theirs] = await Promise.all([readAll(one), readAll(other)]);
    return { same: mine.chunks === theirs.chunks };
  },
  async readable_cancel(client) {
    const reader = (await client.chat.completions.create(chat)).toReadableStream().getReader();
    for (let read = 0; read < SEEN; read++) await reader.read();
    await reader.cancel();
    return {};
  },
  async never_iterated(client) {
    held.push(await client.chat.completions.create(chat));
    return {};
  },
  async retries_after_errors(client) {
    return readAll(await client.chat.completions.create(chat));
  },
  async retry_after_a_reset(client) {
    return readAll(await client.chat.completions.create(chat));
  },
  async upstream_cut(client) {
    return readAll(await client.chat.completions.create(chat));
  },
  async error_event(client) {
    return readAll(await client.chat.completions.create(chat));
  },
  async process_exit(client) {
    await readSome({ [Symbol.asyncIterator]: () => held[held.push(iterate(client)) - 1] });
    process.exit(0);
  },
};

// Without the SDK's own cleanup at a `break`: the process goes with the stream wide open.
function iterate(client) {
  const begun = client.chat.completions.create(chat).then((stream) => stream[Symbol.asyncIterator]());
  return { next: async () => (await begun).next() };
}

async function told(name) {
  try {
    return await WAYS[name](clientFor(name, cases[name]));
  } catch (error) {
    return { error: error.constructor.name };
  }
}

// The SDK's own timeout goes by the clock: nothing else is to run beside it.
const alone = (name) => name === "client_timeout";
const names = Object.keys(cases);
const seen = async (name) => [name, await told(name)];
const outcomes = await Promise.all(names.filter((name) => !alone(name)).map(seen));
for (const name of names.filter(alone)) outcomes.push(await seen(name));
console.log(JSON.stringify(Object.fromEntries(outcomes)));
process.exit(0); // a stream that nobody iterates would keep it alive
