"""What a conversation must look like: the sequential model against which each history of calls is checked."""

from simulation.engine import Model

ABSENT = "absent"
CONFLICT = "conflict"


class Conversations(Model):
    """Each conversation by itself: `None`, or its owner and its messages, as pairs of id and content.

    Operations, each with the conversation's id first in `arg`; an output of `ABSENT` or `CONFLICT` is a refusal:

    - `append` (id, messages) to what is there, `make` (the same, or anew), `store` (id, messages): that it was done.
    - `append_at` (id, messages, version): an append on the condition of a version.
    - `revise` (id, message), `truncate` (id, message id), `drop` (id, message ids): how many were removed.
    - `delete` (id): whether it was there. `erase` (id, user): it is gone behind it, if it was that user's.
    - `expire` (id): it is gone behind it. `purge` (id): nothing. `summarise` (id, …): whether that was of use.
    - `read`, `condensed` (id): the messages and the version, or `None`. `shown` (id): the messages of a copy.
    """

    name = "conversation"

    def init(self):
        """No conversation; version 0."""
        return None, 0

    def partition(self, operations):
        """By conversation: no promise spans two."""
        parts = {}
        for one in operations:
            parts.setdefault(one.arg[0], []).append(one)
        return list(parts.values())

    def step(self, state, operation):
        """See above."""
        known = operation.status == "ok"
        return getattr(self, f"_{operation.f}")(state, operation, known)

    def describe_state(self, state):
        """Ids alone say where a message was lost or doubled."""
        messages, version = state
        return f"version {version}: " + ("no conversation" if messages is None else " ".join(map("=".join, messages)))

    # One method an operation: whether it is possible in this state, and the state behind it.

    def _append(self, state, operation, known):
        if state[0] is None:
            return not known or operation.output == ABSENT, state
        return self._make(state, operation, known)

    def _make(self, state, operation, known):
        messages, version = state
        _, new, *_ = operation.arg
        if known and operation.output == ABSENT:
            return False, state
        held = dict(messages or ())
        if any(held.get(one, content) != content for one, content in new):
            return not known or operation.output == CONFLICT, state
        if known and operation.output == CONFLICT:
            return False, state
        added = tuple(one for one in new if one[0] not in held)
        if not added and messages is not None:
            return True, state
        return True, ((messages or ()) + added, version + 1)

    def _append_at(self, state, operation, known):
        messages, version = state
        _, new, expected = operation.arg
        if messages is not None and all(one in messages for one in new):
            return not known or operation.output not in {CONFLICT, ABSENT}, state
        if version != expected or messages is None:
            return not known or operation.output in {CONFLICT, ABSENT}, state
        return not known or operation.output not in {CONFLICT, ABSENT}, (messages + new, version + 1)

    def _store(self, state, operation, known):
        _, version = state
        _, new, *_ = operation.arg
        return not known or operation.output is True, (new, version + 1)

    def _revise(self, state, operation, known):
        messages, version = state
        _, (name, content) = operation.arg
        if messages is None or name not in dict(messages):
            return not known or operation.output == (ABSENT if messages is None else CONFLICT), state
        if known and operation.output in {ABSENT, CONFLICT}:
            return False, state
        revised = tuple((one, content if one == name else old) for one, old in messages)
        return True, (revised, version + (revised != messages))

    def _truncate(self, state, operation, known):
        messages, version = state
        _, name = operation.arg
        names = [one for one, _ in messages or ()]
        if name not in names:
            return not known or operation.output in {0, ABSENT}, state
        place = names.index(name)
        if known and operation.output != len(names) - place:
            return False, state
        return True, (messages[:place], version + 1)

    def _drop(self, state, operation, known):
        messages, version = state
        if messages is None:
            return not known or operation.output == ABSENT, state
        left = tuple(one for one in messages if one[0] not in operation.arg[1])
        if known and operation.output != len(messages) - len(left):
            return False, state
        return True, (left, version + (left != messages))

    def _delete(self, state, operation, known):
        messages, _ = state
        return not known or operation.output == (messages is not None), self.init()

    def _erase(self, state, operation, known):
        return True, self.init()

    def _expire(self, state, operation, known):
        messages, _ = state
        return not known or (operation.output == ABSENT) == (messages is None), self.init()

    def _purge(self, state, operation, known):
        return True, state

    def _summarise(self, state, operation, known):
        messages, version = state
        if messages is None or (known and operation.output is not True):
            return not known or operation.output in {False, ABSENT}, state
        return operation.arg[1].message_id in dict(messages), (messages, version + 1)

    def _shown(self, state, operation, known):
        return not known or operation.output == state[0], state

    def _condensed(self, state, operation, known):
        return self._read(state, operation, known)

    def _read(self, state, operation, known):
        messages, version = state
        if not known:
            return True, state
        if operation.output is None or messages is None:
            return operation.output is None and messages is None, state
        found, at = operation.output
        return found == messages and at == version, state
