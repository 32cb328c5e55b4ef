"""Server events about tools behind an MCP server.

They make the union whole; this server runs no MCP tools and sends none of them.
"""

from vivavoce.protocol.server_event import ServerEvent


class McpListToolsEvent(ServerEvent, frozen=True, kw_only=True):
    item_id: str


class McpListToolsInProgress(McpListToolsEvent, frozen=True, tag="mcp_list_tools.in_progress"):
    """An MCP server is being asked for its tools."""


class McpListToolsCompleted(McpListToolsEvent, frozen=True, tag="mcp_list_tools.completed"):
    """It answered."""


class McpListToolsFailed(McpListToolsEvent, frozen=True, tag="mcp_list_tools.failed"):
    """It did not."""


class McpArgumentsDelta(
    ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"
):
    response_id: str
    item_id: str
    output_index: int
    delta: str
    obfuscation: str = ""


class McpArgumentsDone(
    ServerEvent, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"
):
    response_id: str
    item_id: str
    output_index: int
    arguments: str


class McpCallEvent(ServerEvent, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class McpCallInProgress(McpCallEvent, frozen=True, tag="response.mcp_call.in_progress"):
    """An MCP tool is being called."""


class McpCallCompleted(McpCallEvent, frozen=True, tag="response.mcp_call.completed"):
    """It answered."""


class McpCallFailed(McpCallEvent, frozen=True, tag="response.mcp_call.failed"):
    """It did not."""
