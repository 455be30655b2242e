"""One tool call of a turn. Whatever goes wrong in it becomes a result that the model can read."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from llm_wrapper import tools
from llm_wrapper.conf import conf
from llm_wrapper.events import (
    Event,
    ToolCallFinished,
    ToolCallStarted,
)
from llm_wrapper.types import (
    ToolCallRequest,
    ToolResult,
)

from .effects import Effect, RunTool, do
from .progress import Progress


def run_tool(progress: Progress, request: ToolCallRequest, *, refuse: bool) -> Generator[Effect | Event, Any, None]:
    """Run one tool call. Whatever goes wrong in it becomes a result that the model can read."""
    state, journal = progress.state, progress.journal
    progress.time_left()
    yield ToolCallStarted(tool_call_id=request.id, name=request.name, arguments=request.arguments, **progress.ids)
    prepared = _prepare(progress, request, refuse)
    duration = 0.0
    if isinstance(prepared, ToolResult):
        result = prepared
    else:
        yield do(journal.start_tool, state, request, tools.time_limit(prepared))
        result, duration = yield RunTool(prepared)
    yield do(journal.finish_tool, state, request, result, duration)
    progress.tool_runs.append(
        {
            "id": request.id,
            "name": request.name,
            "arguments": request.arguments,
            "status": result.status,
            "content": result.content,
        }
    )
    yield ToolCallFinished(
        tool_call_id=request.id,
        name=request.name,
        status=result.status,
        content=result.content,
        error_code=result.code,
        duration=duration,
        **progress.ids,
    )


def _prepare(progress: Progress, request: ToolCallRequest, refuse: bool) -> Any:
    if refuse or len(progress.tool_runs) >= conf.max_tool_calls:
        return tools.limit_reached()
    known = {tool.function_name: tool for tool in progress.job.spec.tools}
    tool = known.get(request.name)
    if tool is None:
        return tools.unknown_tool(request.name, sorted(known))
    # The same for every run of this one tool call, so that a tool can tell a second run from a second call.
    row = progress.state.tool_calls.get(request.id)
    key = f"{progress.state.turn_id}:{row.pk}" if row is not None else request.id
    return tools.prepare(tool, request.arguments, {**progress.job.context, "tool_call_key": key})


def finish_interrupted(progress: Progress, row: Any) -> Generator[Effect | Event, Any, None]:
    """Give a result to a tool call that a dead worker left without one."""
    request = ToolCallRequest(id=row.provider_id, name=row.tool, arguments=row.arguments)
    if row.status == "running":
        tool = {tool.function_name: tool for tool in progress.job.spec.tools}.get(row.tool)
        if tool is None or not tool.idempotent:
            yield do(progress.journal.finish_tool, progress.state, request, tools.unknown_outcome(), 0.0)
            return
        yield do(progress.journal.restart_tool, progress.state, row)
    yield from run_tool(progress, request, refuse=False)
