"""A function that is chosen has to be one of the tools."""

import msgspec
import pytest

from tests.session.stage import MODELS, settings, shared
from vivavoce.errors import InvalidRequest
from vivavoce.protocol.items import FunctionTool, ToolName
from vivavoce.protocol.responses import ResponseParams
from vivavoce.protocol.session import RealtimePatch
from vivavoce.session.cascade.planning import plan_of
from vivavoce.session.options import Options

DIAL, RING = FunctionTool("dial"), FunctionTool("ring")


def planned(options: Options, params: ResponseParams) -> object:
    plan = plan_of(params, msgspec.structs.replace(shared(), options=options))
    return plan.prompt.tool_choice


@pytest.mark.parametrize("tools", [(), (RING,)])
def test_update_that_chooses_a_function_that_is_not_there_changes_nothing(
    tools: tuple[FunctionTool, ...],
) -> None:
    options = Options(settings(tools=(DIAL,)), MODELS)
    before = options.session
    patch = RealtimePatch(tools=tools, tool_choice=ToolName("dial"))
    with pytest.raises(InvalidRequest) as refused:
        options.update(patch, pristine=True, has_spoken=False)
    assert options.session is before
    assert (refused.value.code, refused.value.param, refused.value.message) == (
        "invalid_value",
        "session.tool_choice",
        "Invalid 'session.tool_choice': there is no function named 'dial' in 'tools'.",
    )


@pytest.mark.parametrize("tools", [msgspec.UNSET, (DIAL, RING)])
def test_update_may_choose_a_function_of_its_own_or_of_the_session(
    tools: tuple[FunctionTool, ...] | msgspec.UnsetType,
) -> None:
    options = Options(settings(tools=(DIAL,)), MODELS)
    patch = RealtimePatch(tools=tools, tool_choice=ToolName("dial"))
    options.update(patch, pristine=True, has_spoken=False)
    assert options.realtime.tool_choice == ToolName("dial")


def test_response_may_choose_a_function_of_its_own_or_of_the_session_and_no_other() -> None:
    options = Options(settings(tools=(DIAL,)), MODELS)
    dial, ring = ToolName("dial"), ToolName("ring")
    assert planned(options, ResponseParams(tool_choice=dial)) == dial
    assert planned(options, ResponseParams(tool_choice=ring, tools=(RING,))) == ring
    for params in (
        ResponseParams(tool_choice=ring),
        ResponseParams(tool_choice=dial, tools=(RING,)),
        ResponseParams(tool_choice=dial, tools=()),
    ):
        with pytest.raises(InvalidRequest) as refused:
            planned(options, params)
        assert refused.value.param == "response.tool_choice"


def test_tool_choice_of_a_session_does_not_bind_a_response_without_tools() -> None:
    options = Options(settings(tools=(DIAL,), tool_choice=ToolName("dial")), MODELS)
    assert planned(options, ResponseParams(tools=())) == ToolName("dial")
