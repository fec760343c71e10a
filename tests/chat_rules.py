"""What a chat-completions interface refuses, written from its rules, and not from our code.

An assistant's `tool_calls` must each be answered by a message of role `tool` before anything else is said; a `tool`
message must answer a call of the assistant's message before it. The interface itself would also refuse calls that still
wait at the end; for us that is where a human is asked, so there, and only there, they may wait.
"""


def problem(messages):
    """Tell what is wrong with a list of messages, or return None; `messages` have the attributes of a `Message`."""
    open_calls, answered = set(), set()
    for place, message in enumerate(messages):
        role = getattr(message.role, "value", message.role)
        if role == "tool":
            if message.tool_call_id in answered:
                return f"message {place} answers a call that was answered"
            if message.tool_call_id not in open_calls:
                return f"message {place} is a tool's, and answers no call of the message before it"
            open_calls.remove(message.tool_call_id)
            answered.add(message.tool_call_id)
            continue
        if open_calls:
            return f"message {place} comes while a call waits for its result"
        calls = [call.id for call in message.tool_calls or ()] if role == "assistant" else []
        if len(set(calls)) < len(calls):
            return f"message {place} makes two calls with one id"
        open_calls, answered = set(calls), set()
    ids = [message.message_id for message in messages]
    if len(set(ids)) < len(ids):
        return "a message is there twice"
    return None
