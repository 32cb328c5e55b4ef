"""langchain-openai's chat model: an answer, a streamed one, a tool."""

from plumbing import KEY, QUESTION, Trial, main

PACKAGES = ("langchain-openai==1.7.4",)


async def drive(trial: Trial) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"20 degrees in {city}"

    chat = ChatOpenAI(
        model="gpt-4o-mini", base_url=f"{trial.http}/v1", api_key=KEY, use_responses_api=False
    )
    trial.expect((await chat.ainvoke("Hello")).text, "answer")
    chunks = [chunk.text async for chunk in chat.astream("Hello")]
    trial.expect(len(chunks) > 1 and "".join(chunks), "streamed answer")
    messages = [HumanMessage(QUESTION)]
    answer = await chat.bind_tools([get_weather]).ainvoke(messages)
    calls = answer.tool_calls
    trial.expect(calls and calls[0]["args"] == {"city": "Rome"}, "tool is called")
    result = ToolMessage(get_weather.invoke(calls[0]["args"]), tool_call_id=calls[0]["id"])
    answer = await chat.bind_tools([get_weather]).ainvoke([*messages, answer, result])
    trial.expect("20" in answer.text, "tool's output is answered")


if __name__ == "__main__":
    main(PACKAGES, drive)
