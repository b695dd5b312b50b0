// JavaScript agents as their users write them: `node clients.mjs CLIENT URL PROMPT`.
import { z } from "zod";
const [, , client, url, prompt] = process.argv;
const toolAnswer = ({ city }) => `tool says: ${city}-is-sunny`;

async function aiSdk(model) {
  const { generateText, streamText, tool, stepCountIs } = await import("ai");
  const tools = {
    lookup: tool({ description: "Look a city up", inputSchema: z.object({ city: z.string() }), execute: toolAnswer }),
  };
  const asked = { model, prompt, tools, stopWhen: stepCountIs(4), maxRetries: 0 };
  const whole = (await generateText(asked)).text;
  const streamed = await streamText(asked).text;
  return `${whole}\n${streamed}`;
}

const clients = {
  async ai_sdk_responses() {
    const { createOpenAI } = await import("@ai-sdk/openai");
    return aiSdk(createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" })("m"));
  },
  async ai_sdk_chat() {
    const { createOpenAI } = await import("@ai-sdk/openai");
    return aiSdk(createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).chat("m"));
  },
  async ai_sdk_anthropic() {
    const { createAnthropic } = await import("@ai-sdk/anthropic");
    return aiSdk(createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" })("m"));
  },
  async openai_agents_js() {
    const { Agent, run, tool, OpenAIResponsesModel, setTracingDisabled } = await import("@openai/agents");
    const OpenAI = (await import("openai")).default;
    setTracingDisabled(true);
    const lookup = tool({
      name: "lookup", description: "Look a city up",
      parameters: z.object({ city: z.string() }), execute: async (given) => toolAnswer(given),
    });
    const model = new OpenAIResponsesModel(new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }), "m");
    const agent = new Agent({ name: "a", instructions: "Help.", model, tools: [lookup] });
    const whole = (await run(agent, prompt, { maxTurns: 4 })).finalOutput;
    const stream = await run(agent, prompt, { maxTurns: 4, stream: true });
    await stream.completed;
    return `${whole}\n${stream.finalOutput}`;
  },
};

console.log(await clients[client]());
