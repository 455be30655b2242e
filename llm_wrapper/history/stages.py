"""The stages of a turn in the database. Each public function is one short transaction, or one statement.

A stage that writes for a turn first renews the turn's lease with a statement that matches only while the turn
is running and its fencing number is this worker's. Where it matches nothing the turn was ended or taken over, and
`TurnLost` stops the worker before it writes anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connections, models, transaction
from django.db.models import F, Subquery
from django.db.models.functions import Now

from llm_wrapper import tools
from llm_wrapper.conf import conf
from llm_wrapper.errors import IdempotencyConflict, InsideTransaction, LLMWrapperError, TurnInProgress, TurnLost
from llm_wrapper.models import ChatHistory, LLMCall, Message, PromptVersion, ToolCall, Turn
from llm_wrapper.models.journal import provider_messages, sent_steps
from llm_wrapper.types import Completion, ConfigChoice, ToolCallRequest, ToolResult

from .text import storable
from .transcript import Append, DropOldest, MergeObject


@dataclass
class TurnState:
    """Where a running turn stands. Only the turn's own worker writes to the chat, so this stays true.

    `leased_until` is on this process's monotonic clock. `messages` are what the next call sends, read once and
    then kept up with each step.
    """

    turn: Turn
    fence: int
    chat_id: int
    position: int
    system_message_id: int | None
    user_message: Message
    config_name: str = ""
    calls: int = 0
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    leased_until: float = 0.0
    first_position: int = 0
    messages: list[dict[str, Any]] | None = None

    @property
    def turn_id(self) -> int:
        return int(self.turn.pk)

    def wrote(self, message: Message) -> None:
        """Take note of a step of this turn."""
        self.position = message.position
        if self.messages is not None:
            self.messages.append(message.provider_message(rendered=True))


def new_steps(chat_id: int, after: int, steps: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Write steps behind position `after`; each is the keyword arguments of a Message. The caller adds the entries."""
    messages = [
        Message(chat_id=chat_id, position=after + number, **{key: storable(value) for key, value in step.items()})
        for number, step in enumerate(steps, start=1)
    ]
    return Message.objects.bulk_create(messages)


def _write_steps(chat_id: int, after: int, steps: Sequence[Mapping[str, Any]], **columns: Any) -> list[Message]:
    """Steps, their transcript entries, and further columns of the chat, in the caller's transaction."""
    messages = new_steps(chat_id, after, steps)
    if messages:
        columns["chat_history"] = Append(
            [message.entry() for message in messages], columns.get("chat_history", "chat_history")
        )
        columns["last_position"] = messages[-1].position
    ChatHistory.objects.filter(pk=chat_id).update(updated_at=Now(), **columns)
    return messages


def _renew(state: TurnState, seconds: float = 0.0, **columns: Any) -> None:
    """Renew the lease for work that may take `seconds`, or stop if the turn is no longer ours."""
    lease = conf.turn_lease + seconds
    started = time.monotonic()
    running = Turn.objects.filter(pk=state.turn_id, status=Turn.Status.RUNNING, fence=state.fence)
    if not running.update(**{"lease_expires_at": Now() + timedelta(seconds=lease), **columns}):
        raise _lost(state)
    state.leased_until = started + lease


def _lost(state: TurnState) -> TurnLost:
    return TurnLost(
        f"Turn {state.turn_id} was ended by another worker, because its lease ran out. Nothing more was written."
    )


def _renew_for(state: TurnState, seconds: float) -> None:
    """Renew the lease for work of so many seconds, unless it lasts that long anyway."""
    if state.leased_until - time.monotonic() < seconds + conf.turn_lease / 2:
        _renew(state, seconds)


# -- chats -----------------------------------------------------------------------------------------------


@transaction.atomic
def create_chat(
    *,
    user: Any = None,
    prompt_template_id: int | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
    remembered: Mapping[str, Any] | None = None,
    **columns: Any,
) -> ChatHistory:
    """A new chat with its first steps (system and initial messages), committed as one."""
    chat = ChatHistory.objects.create(
        user=user,
        prompt_template_id=prompt_template_id,
        current_context_variables=storable(dict(remembered or {})),
        **columns,
    )
    if steps:
        add_steps(chat, steps)
    return chat


@transaction.atomic
def add_steps(chat: ChatHistory, steps: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Add steps to a chat outside of a turn. Raises TurnInProgress while a turn runs."""
    locked = _lock_chat(chat.pk)
    _refuse_if_running(locked)
    messages = _write_steps(chat.pk, locked.last_position, steps)
    for message in messages:
        if message.type == Message.Type.SYSTEM:
            ChatHistory.objects.filter(pk=chat.pk).update(system_message=message)
    chat.refresh_from_db()
    return messages


def remember(chat_id: int, values: Mapping[str, Any]) -> None:
    """Lay values over the chat's remembered context variables."""
    if values:
        ChatHistory.objects.filter(pk=chat_id).update(
            current_context_variables=MergeObject("current_context_variables", storable(dict(values)))
        )


def _lock_chat(chat_id: int) -> Any:
    """The chat, held until the transaction ends, with `running_turn_id` and `system_text`.

    The lock is a statement of its own: what is read after it is sure to be the newest, which PostgreSQL does
    not promise for the joined parts of one locking query.
    """
    connection = connections[ChatHistory.objects.db]
    if connection.features.has_select_for_update:
        ChatHistory.objects.select_for_update().only("pk").get(pk=chat_id)
    elif getattr(connection, "transaction_mode", None) != "IMMEDIATE":
        # SQLite then locks the database at a transaction's first write; a read before it could be outdated.
        Turn.objects.filter(pk=0).update(number=0)
    running = Turn.objects.filter(chat=chat_id, status=Turn.Status.RUNNING)
    return (
        ChatHistory.objects.defer("chat_history", "current_context_variables")
        .annotate(running_turn_id=Subquery(running.values("pk")[:1]), system_text=F("system_message__text"))
        .get(pk=chat_id)
    )


def _refuse_if_running(chat: Any) -> None:
    """Raise TurnInProgress if a turn is alive on the chat; end it as crashed if its lease has run out."""
    if chat.running_turn_id is None:
        return
    if Turn.objects.filter(pk=chat.running_turn_id, lease_expires_at__gt=Now()).exists():
        raise TurnInProgress(
            f"Chat {chat.pk} is still answering an earlier message. Wait for its end, or stop it, and send again."
        )
    repair(Turn.objects.get(pk=chat.running_turn_id))
    chat.refresh_from_db(fields=["last_position", "transcript_start"])


# -- a turn ----------------------------------------------------------------------------------------------


def open_turn(chat_id: int, **turn: Any) -> TurnState | Turn:
    """Commit the user's message and open its turn: from here on the message cannot be lost.

    Takes the arguments of `_open_turn`. Raises InsideTransaction where the caller could still roll it back.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(transaction.atomic(durable=True))
        except RuntimeError:
            raise InsideTransaction(
                "A turn was started inside a transaction. It commits each step, so that a crash loses nothing, and "
                "cannot do so there. Send after the transaction; with ATOMIC_REQUESTS, put "
                "@transaction.non_atomic_requests on the view."
            ) from None
        return _open_turn(chat_id, **turn)


def _open_turn(
    chat_id: int,
    *,
    text: str,
    rendered_text: str | None = None,
    system_text: str | None = None,
    initial_steps: Sequence[Mapping[str, Any]] = (),
    user: Any = None,
    payload: Mapping[str, Any] | None = None,
    remembered: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> TurnState | Turn:
    """The rows of a new turn, in the caller's transaction.

    `system_text` is the system prompt of this turn; it becomes a step only where it differs from the one in
    force. An empty one puts none in force, None leaves the one in force. Returns the finished turn instead if
    `idempotency_key` was used before for the same message. Raises TurnInProgress, or IdempotencyConflict if the
    key belongs to another message.
    """
    chat = _lock_chat(chat_id)
    if idempotency_key is not None:
        earlier = Turn.objects.filter(chat=chat_id, idempotency_key=idempotency_key).first()
        if earlier is not None:
            return _same_request(earlier, storable(text))
    _refuse_if_running(chat)
    lease, started = conf.turn_lease + conf.call_timeout, time.monotonic()
    turn = Turn.objects.create(
        chat_id=chat_id,
        number=chat.turn_count + 1,
        idempotency_key=idempotency_key,
        lease_expires_at=Now() + timedelta(seconds=lease),
    )
    steps: list[dict[str, Any]] = []
    new_system = bool(system_text) and chat.system_text != storable(system_text)
    if new_system:
        steps.append({"type": Message.Type.SYSTEM, "text": system_text, "turn": turn})
    steps.extend(dict(step) for step in initial_steps)
    steps.append(
        {
            "type": Message.Type.USER,
            "text": text,
            "rendered_text": rendered_text,
            "user": user,
            "payload": dict(payload or {}),
            "turn": turn,
        }
    )
    columns: dict[str, Any] = {"turn_count": turn.number, **_trim(chat)}
    if remembered:
        columns["current_context_variables"] = MergeObject("current_context_variables", storable(dict(remembered)))
    messages = _write_steps(chat_id, chat.last_position, steps, **columns)
    system_id = messages[0].pk if new_system else chat.system_message_id if system_text != "" else None
    if system_id != chat.system_message_id:
        ChatHistory.objects.filter(pk=chat_id).update(system_message_id=system_id)
    return TurnState(
        turn=turn,
        fence=turn.fence,
        chat_id=chat_id,
        position=messages[-1].position,
        system_message_id=system_id,
        user_message=messages[-1],
        config_name=chat.llm_config_name,
        leased_until=started + lease,
    )


def _same_request(turn: Turn, text: str) -> Turn:
    asked = turn.messages.filter(type=Message.Type.USER).order_by("position").first()
    if asked is None or asked.text != text:
        raise IdempotencyConflict(
            f"The idempotency key {turn.idempotency_key!r} was used for another message of this chat. "
            "Use a new key for a new message."
        )
    if turn.status == Turn.Status.RUNNING:
        raise TurnInProgress("The message with this idempotency key is being answered now. Ask again later.")
    return turn


def _trim(chat: ChatHistory) -> dict[str, Any]:
    """Cut the transcript back to its limit, in batches, so that most steps only append."""
    limit = conf.transcript_limit
    held = chat.last_position - chat.transcript_start + 1
    if limit is None or held <= limit + max(limit // 4, 1):
        return {}
    excess = held - limit
    return {"chat_history": DropOldest(excess), "transcript_start": F("transcript_start") + excess}


def window(state: TurnState, *, limit: int | None, replay_rendered: bool) -> tuple[int, list[dict[str, Any]]]:
    """The messages of the next call and the position of the first of them that is not pinned.

    With a `limit` these are the newest messages, begun at a user message so that a tool call is never
    parted from its result, and always reaching back to this turn's own message.
    """
    if state.messages is not None:
        return state.first_position, list(state.messages)
    first = 1
    if limit is not None:
        start = max(state.position - limit + 1, 1)
        own = state.user_message.position
        candidates = Message.objects.filter(
            chat=state.chat_id, type=Message.Type.USER, position__gte=start, position__lte=own
        )
        first = candidates.order_by("position").values_list("position", flat=True).first() or own
    steps = sent_steps(state.chat_id, first=first, last=state.position, system_id=state.system_message_id)
    state.first_position, state.messages = first, provider_messages(steps, state.turn_id, replay_rendered)
    return first, list(state.messages)


def start_call(
    state: TurnState,
    choice: ConfigChoice,
    *,
    route: Mapping[str, Any],
    first_position: int,
    prompt_version: PromptVersion | None,
    request_params: Mapping[str, Any],
    streamed: bool,
    timeout: float,
) -> LLMCall:
    """Put the call on record before it is made."""
    _renew_for(state, timeout)
    state.calls += 1
    return LLMCall.objects.create(
        turn=state.turn,
        attempt=state.calls,
        config_name=choice.name,
        model=choice.model,
        prompt_version=prompt_version,
        first_position=first_position,
        last_position=state.position,
        system_message_id=state.system_message_id,
        request_params=storable(dict(request_params)),
        route=dict(route),
        streamed=streamed,
    )


def save_partial(state: TurnState, call: LLMCall, text: str, timeout: float) -> None:
    """Keep what has arrived of an answer, and show that the turn is alive."""
    _renew(state, timeout)
    LLMCall.objects.filter(pk=call.pk).update(partial_text=storable(text))


def fail_call(call: LLMCall, error: LLMWrapperError, *, partial_text: str, latency: float, cancelled: bool) -> None:
    """Close a call that gave no answer."""
    LLMCall.objects.filter(pk=call.pk).update(
        status=LLMCall.Status.CANCELLED if cancelled else LLMCall.Status.FAILED,
        error_code=error.code,
        error_message=storable(str(error)),
        partial_text=storable(partial_text),
        latency=latency,
        finished_at=Now(),
    )


@transaction.atomic
def save_answer(
    state: TurnState,
    call: LLMCall,
    completion: Completion,
    *,
    latency: float,
    time_to_first_token: float | None,
    final: bool,
) -> Message:
    """Close the call and commit its answer with usage and cost; `final` ends the turn in the same transaction."""
    if final:
        _renew(state, status=Turn.Status.DONE, finished_at=Now(), lease_expires_at=None)
    else:
        _renew(state)
    usage = completion.usage
    LLMCall.objects.filter(pk=call.pk).update(
        status=LLMCall.Status.DONE,
        model=completion.model or call.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=completion.cost,
        price_source=completion.price_source,
        latency=latency,
        time_to_first_token=time_to_first_token,
        finish_reason=completion.finish_reason[:50],
        response_id=storable(completion.response_id)[:200],
        partial_text="",
        finished_at=Now(),
    )
    payload: dict[str, Any] = {
        "llm_config_name": call.config_name,
        "message_generation_time": round(latency, 1),
    }
    if completion.tool_calls:
        payload["tool_calls"] = [request.as_message_part() for request in completion.tool_calls]
    (message,) = _write_steps(
        state.chat_id,
        state.position,
        [
            {
                "type": Message.Type.ASSISTANT,
                "text": completion.text,
                "payload": payload,
                "turn": state.turn,
                "llm_call": call,
                "tokens": usage.output_tokens,
                "cost": completion.cost,
            }
        ],
        input_tokens_count=F("input_tokens_count") + (usage.input_tokens or 0),
        output_tokens_count=F("output_tokens_count") + (usage.output_tokens or 0),
        cost=F("cost") + (completion.cost or 0),
        unpriced_calls=F("unpriced_calls") + int(completion.cost is None),
        llm_config_name=call.config_name,
    )
    state.wrote(message)
    if completion.tool_calls:
        rows = [
            ToolCall(
                turn=state.turn,
                llm_call=call,
                provider_id=storable(request.id)[:200],
                tool=storable(request.name)[:100],
                arguments=storable(request.arguments),
            )
            for request in completion.tool_calls
        ]
        for request, row in zip(completion.tool_calls, ToolCall.objects.bulk_create(rows), strict=True):
            state.tool_calls[request.id] = row
    return message


def start_tool(state: TurnState, request: ToolCallRequest, timeout: float) -> None:
    """Put on record that a tool is about to run: after a crash it is known that it may have had its effect.

    Matches only while the call is pending, and a take-over ends that: so a worker that was taken over does not
    run the tool after all.
    """
    _renew_for(state, timeout)
    pending = ToolCall.objects.filter(pk=state.tool_calls[request.id].pk, status=ToolCall.Status.PENDING)
    if not pending.update(status=ToolCall.Status.RUNNING):
        raise _lost(state)


@transaction.atomic
def finish_tool(state: TurnState, request: ToolCallRequest, result: ToolResult, duration: float) -> Message:
    """Commit a tool's result and the step that tells the model of it."""
    _renew(state)
    row = state.tool_calls.pop(request.id)
    ToolCall.objects.filter(pk=row.pk).update(
        status=result.status,
        result=storable(result.content),
        error_code=result.code,
        duration=duration,
    )
    (message,) = _write_steps(
        state.chat_id, state.position, [_tool_step(state.turn, request.id, request.name, result.content)]
    )
    state.wrote(message)
    return message


def _tool_step(turn: Turn, provider_id: str, name: str, content: str) -> dict[str, Any]:
    return {
        "type": Message.Type.TOOL,
        "text": content,
        "payload": {"tool_call_id": provider_id, "name": name},
        "turn": turn,
    }


@transaction.atomic
def add_turn_step(state: TurnState, step: Mapping[str, Any]) -> Message:
    """Add one more step to a running turn, such as the request to repair an answer."""
    _renew(state)
    (message,) = _write_steps(state.chat_id, state.position, [{"turn": state.turn, **step}])
    state.wrote(message)
    return message


def lose_call(call: LLMCall) -> None:
    """Close a call that was started on a turn which was taken over meanwhile."""
    LLMCall.objects.filter(pk=call.pk, status=LLMCall.Status.RUNNING).update(
        status=LLMCall.Status.LOST, error_code="lost", finished_at=Now()
    )


@transaction.atomic
def fail_turn(state: TurnState, error: LLMWrapperError, *, partial_text: str = "", cancelled: bool = False) -> None:
    """End a turn without an answer, so that the chat goes on: the error, what had arrived, and a result for
    each tool call that has none are kept."""
    status = Turn.Status.CANCELLED if cancelled else Turn.Status.FAILED
    _renew(
        state,
        status=status,
        finished_at=Now(),
        lease_expires_at=None,
        error_code=error.code,
        error_message=storable(str(error)),
    )
    _close_open_ends(state.turn, state.position, partial_text)


@transaction.atomic
def repair(turn: Turn) -> None:
    """End a turn whose worker is gone. What it was doing becomes `lost` or `unknown`, nothing is run again."""
    ended = Turn.objects.filter(pk=turn.pk, status=Turn.Status.RUNNING, lease_expires_at__lte=Now()).update(
        status=Turn.Status.FAILED,
        error_code="crashed",
        error_message="The worker that ran this turn stopped before it ended.",
        finished_at=Now(),
        lease_expires_at=None,
    )
    if not ended:
        return
    partial = _lose_calls(turn)
    position = ChatHistory.objects.values_list("last_position", flat=True).get(pk=turn.chat_id)
    _close_open_ends(turn, position, partial)


def expired_turns() -> models.QuerySet[Turn]:
    """Turns whose worker shows no sign of life any more, by the database's clock."""
    return Turn.objects.filter(status=Turn.Status.RUNNING, lease_expires_at__lte=Now()).order_by("pk")


@transaction.atomic
def take_over(turn_id: int) -> tuple[TurnState, list[ToolCall]] | None:
    """Make a crashed turn this worker's own, to end it with an answer; None if it is alive or another was faster.

    The former worker can write no more. Its calls become `lost`. Gives the tool calls that have no result yet.
    """
    lease, started = conf.turn_lease + conf.call_timeout, time.monotonic()
    taken = (
        expired_turns()
        .filter(pk=turn_id)
        .update(fence=F("fence") + 1, lease_expires_at=Now() + timedelta(seconds=lease))
    )
    if not taken:
        return None
    turn = Turn.objects.get(pk=turn_id)
    chat = _lock_chat(turn.chat_id)
    _lose_calls(turn)
    without_result = list(turn.tool_calls.filter(status__in=[ToolCall.Status.PENDING, ToolCall.Status.RUNNING]))
    asked = turn.messages.filter(type=Message.Type.USER).order_by("position").first()
    state = TurnState(
        turn=turn,
        fence=turn.fence,
        chat_id=turn.chat_id,
        position=chat.last_position,
        system_message_id=chat.system_message_id,
        user_message=asked,
        config_name=chat.llm_config_name,
        calls=turn.llm_calls.count(),
        tool_calls={row.provider_id: row for row in without_result},
        leased_until=started + lease,
    )
    return state, without_result


def restart_tool(state: TurnState, row: ToolCall) -> None:
    """Put an interrupted tool call back to where it may be started."""
    _renew(state)
    ToolCall.objects.filter(pk=row.pk).update(status=ToolCall.Status.PENDING)


def _lose_calls(turn: Turn) -> str:
    """Close the calls that a dead worker left open; gives what had arrived of the last one."""
    lost = turn.llm_calls.filter(status=LLMCall.Status.RUNNING)
    partial = lost.order_by("attempt").values_list("partial_text", flat=True).last() or ""
    lost.update(
        status=LLMCall.Status.LOST,
        error_code="lost",
        error_message="The worker stopped before the answer was saved; the provider may have billed it.",
        finished_at=Now(),
    )
    return partial


def _close_tool(row: models.QuerySet[ToolCall], result: ToolResult) -> int:
    return row.update(status=result.status, result=result.content, error_code=result.code)


def _close_open_ends(turn: Turn, position: int, partial_text: str) -> None:
    """Give every tool call without a result one (providers refuse a history without it), keep the partial
    answer as a step, and let a turn that has neither leave the context: its message would only stand there
    unanswered."""
    steps = []
    for row in turn.tool_calls.filter(status__in=[ToolCall.Status.PENDING, ToolCall.Status.RUNNING]):
        # Another worker may start it at this moment, so what is not pending any more counts as running.
        this, result = ToolCall.objects.filter(pk=row.pk), tools.not_run()
        if not _close_tool(this.filter(status=ToolCall.Status.PENDING), result):
            result = tools.unknown_outcome()
            _close_tool(this, result)
        steps.append(_tool_step(turn, row.provider_id, row.tool, result.content))
    if partial_text:
        steps.append(
            {
                "type": Message.Type.ASSISTANT,
                "text": partial_text,
                "payload": {"incomplete": True},
                "turn": turn,
            }
        )
    if steps:
        _write_steps(turn.chat_id, position, steps)
    elif not turn.messages.filter(type=Message.Type.ASSISTANT).exists():
        turn.messages.exclude(type=Message.Type.SYSTEM).update(left_context_at=position + 1)
