"""Python agents as their users write them: each asks one thing, and prints what it was told.

`python clients.py CLIENT URL PROMPT`; run in an environment that has the client.
"""

import asyncio
import sys


def tool_answer(city: str) -> str:
    """Look a city up."""
    return f"tool says: {city}-is-sunny"


def openai_agents(url: str, prompt: str, *, chat: bool = False) -> str:
    """The OpenAI Agents SDK, on Responses (its default) or Chat Completions."""
    from agents import (  # noqa: PLC0415
        Agent,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        Runner,
        function_tool,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI  # noqa: PLC0415

    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    kind = OpenAIChatCompletionsModel if chat else OpenAIResponsesModel
    lookup = function_tool(tool_answer, name_override="lookup")
    agent = Agent(name="a", model=kind(model="m", openai_client=client), tools=[lookup])

    async def both() -> str:
        whole = await Runner.run(agent, prompt, max_turns=4)
        result = Runner.run_streamed(agent, prompt, max_turns=4)
        async for _ in result.stream_events():
            pass
        return f"{whole.final_output}\n{result.final_output}"

    return asyncio.run(both())


def openai_agents_chat(url: str, prompt: str) -> str:
    """The OpenAI Agents SDK on Chat Completions."""
    return openai_agents(url, prompt, chat=True)


def langchain_openai(url: str, prompt: str) -> str:
    """LangChain's agent over Chat Completions."""
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    model = ChatOpenAI(model="m", base_url=f"{url}/v1", api_key="none", max_retries=0)
    return _langchain(model, prompt)


def langchain_responses(url: str, prompt: str) -> str:
    """LangChain's agent over Responses."""
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    model = ChatOpenAI(
        model="m", base_url=f"{url}/v1", api_key="none", max_retries=0, use_responses_api=True
    )
    return _langchain(model, prompt)


def langchain_anthropic(url: str, prompt: str) -> str:
    """LangChain's agent over Messages."""
    from langchain_anthropic import ChatAnthropic  # noqa: PLC0415

    return _langchain(ChatAnthropic(model="m", base_url=url, api_key="none", max_retries=0), prompt)


def _langchain(model: object, prompt: str) -> str:
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.tools import tool  # noqa: PLC0415

    agent = create_agent(model, tools=[tool("lookup")(tool_answer)])
    asked = {"messages": [{"role": "user", "content": prompt}]}
    whole = agent.invoke(asked)["messages"][-1].text
    pieces = [
        message.text
        for message, _ in agent.stream(asked, stream_mode="messages")
        if type(message).__name__ == "AIMessageChunk"
    ]
    return f"{whole}\n{''.join(pieces)}"


def llama_index(url: str, prompt: str) -> str:
    """LlamaIndex's client for servers like OpenAI's, with a tool."""
    from llama_index.core.llms import ChatMessage  # noqa: PLC0415
    from llama_index.core.tools import FunctionTool  # noqa: PLC0415
    from llama_index.llms.openai_like import OpenAILike  # noqa: PLC0415

    model = OpenAILike(
        model="m",
        api_base=f"{url}/v1",
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    lookup = FunctionTool.from_defaults(tool_answer, name="lookup")
    reply = model.predict_and_call([lookup], prompt) if "MARK-task" in prompt else None
    if reply is not None:
        return str(reply)
    pieces = list(model.stream_chat([ChatMessage(role="user", content=prompt)]))
    return str(pieces[-1].message.content)


if __name__ == "__main__":
    print(globals()[sys.argv[1]](sys.argv[2], sys.argv[3]))
