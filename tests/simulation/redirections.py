"""Redis as a Cluster, and behind Sentinel: servers of many names that redirect, each in front of the one real server.

Data need not move when a slot or the part of the master does, since all of them look at the same; what clients are told
meanwhile (MOVED, ASK, TRYAGAIN, CROSSSLOT, READONLY) and when is what servers say.
"""

from redis.crc import key_slot

from simulation import lines
from simulation.engine import choice, flip, note

PORT, SENTINEL_PORT = 6379, 26_379

EVENTS = 0.03
"""How probable it is that a message finds a slot on its way, or a master that has changed."""

KEYLESS = {b"HELLO", b"CLIENT", b"PING", b"INFO", b"SCRIPT", b"SCAN", b"ROLE", b"CONFIG", b"ACL", b"SELECT", b"AUTH"}


class Cluster:
    """Who has which slots. They lie in blocks, which move as one; meanwhile some of a block's keys have moved already.

    Args:
        faults: what else happens on the way; nothing moves any more once that is calm.
        port: the real server's.
    """

    BLOCKS, SLOTS = 8, 16_384
    NODES = ("n0", "n1", "n2", "n3")

    def __init__(self, faults, port):
        self.faults, self.port = faults, port
        # The last has none at first: a replica, say.
        self._owners = [self.NODES[block % 3] for block in range(self.BLOCKS)]
        self._moving, self._moved, self._down = {}, set(), None

    def ways(self):
        """A way to each node, by its name."""
        return {(name, PORT): _Node(self, name) for name in self.NODES}

    def happens(self):
        """Something may change before a message is executed; once it is calm, what is under way ends."""
        if not self.faults.cut:
            self._down = None
            for block in list(self._moving):
                self._arrives(block)
        elif flip(EVENTS):
            self._next()

    def is_down(self, name):
        """Whether a node answers nobody."""
        return name == self._down

    def _next(self):
        event = choice(("begins", "goes on", "arrives", "fails over"))
        block = choice(range(self.BLOCKS))
        if event == "fails over":
            # Its slots are another's at once or later: until then all lead to a node that is not there.
            self._down = None if self._down else self._owners[block]
            if self._down is None or flip(0.5):
                heir = choice([name for name in self.NODES if name != self._down])
                self._owners = [heir if owner == self._down else owner for owner in self._owners]
        elif event == "begins" and block not in self._moving:
            self._moving[block] = choice([name for name in self.NODES if name != self._owners[block]])
        elif event == "goes on":
            for key in lines.command(self.port, "KEYS", "*"):
                if self._block(key) in self._moving and flip(0.5):
                    self._moved.add(key)
        elif event == "arrives" and block in self._moving:
            self._arrives(block)
        else:
            return
        note(f"cluster: {event} {block}")

    def _arrives(self, block):
        self._owners[block] = self._moving.pop(block)
        self._moved = {key for key in self._moved if self._block(key) != block}

    def _block(self, key):
        return key_slot(key) * self.BLOCKS // self.SLOTS

    def slots(self):
        """The answer to CLUSTER SLOTS."""
        size = self.SLOTS // self.BLOCKS
        parts = [
            b"*3\r\n:%d\r\n:%d\r\n*2\r\n$%d\r\n%s\r\n:%d\r\n"
            % (block * size, (block + 1) * size - 1, len(owner), owner.encode(), PORT)
            for block, owner in enumerate(self._owners)
        ]
        return b"*%d\r\n%s" % (len(parts), b"".join(parts))

    def refusal(self, name, keys, *, asking):
        """What a node says instead of an answer, if anything."""
        slots = {key_slot(key) for key in keys}
        if not slots:
            return None
        if len(slots) > 1:
            return b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        (slot,), block = slots, self._block(keys[0])
        owner, target = self._owners[block], self._moving.get(block)
        if name == owner:
            return None if target is None else self._left(keys, slot, target)
        if name != target or not asking:
            return _led("MOVED", slot, owner)
        if len(keys) > 1 and not self._moved.issuperset(keys):
            return _UNDER_WAY
        self._moved.update(keys)
        return None

    def _left(self, keys, slot, target):
        """What a node says of keys that are on their way: only where all are there still, it answers."""
        here = [key for key in keys if key not in self._moved and lines.command(self.port, "EXISTS", key)]
        if len(here) == len(keys):
            return None
        return _UNDER_WAY if here else _led("ASK", slot, target)


_UNDER_WAY = b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"


def _led(word, slot, owner):
    return b"-%s %d %s:%d\r\n" % (word.encode(), slot, owner.encode(), PORT)


class _Node(lines.RedisLine):
    """The way to one node of a Cluster."""

    def __init__(self, cluster, name):
        super().__init__(cluster.faults, cluster.port)
        self._cluster, self._name = cluster, name

    def execute(self, server, words, session):
        """See above."""
        self._cluster.happens()
        if self._cluster.is_down(self._name):
            raise ConnectionResetError("this node is down")
        first = words[0].upper()
        if first == b"ASKING":
            session.add("asking")
            return b"+OK\r\n"
        if first == b"CLUSTER":
            return self._cluster.slots()
        refusal = self._cluster.refusal(self._name, _keys(server, words), asking="asking" in session)
        session.discard("asking")
        return refusal or super().execute(server, words, session)


def _keys(server, words):
    """The keys that a command names, by the server's own reading of it."""
    first = words[0].upper()
    if first in KEYLESS:
        return []
    if first in {b"EVAL", b"EVALSHA"}:
        return words[3 : 3 + int(words[2])]
    found = lines.answer(server, "COMMAND", "GETKEYS", *words)
    return found if isinstance(found, list) else []


class Sentinel:
    """Which of two servers is the master, and which of three sentinels know it.

    Args:
        faults, port: as above.
    """

    MASTERS, SENTINELS = ("m0", "m1"), ("s0", "s1", "s2")

    def __init__(self, faults, port):
        self.faults, self.port = faults, port
        self.master = "m0"
        self.named = dict.fromkeys(self.SENTINELS, "m0")

    def ways(self):
        """A way to each server and sentinel, by its name."""
        return {(name, PORT): _Server(self, name) for name in self.MASTERS} | {
            (name, SENTINEL_PORT): _Guard(self, name) for name in self.SENTINELS
        }

    def happens(self):
        """The master may change, or a sentinel hear of it; once it is calm, all of them know."""
        if not self.faults.cut:
            self.named = dict.fromkeys(self.SENTINELS, self.master)
        elif flip(EVENTS):
            if set(self.named.values()) == {self.master}:
                self.master = next(name for name in self.MASTERS if name != self.master)
                note(f"sentinel: {self.master} is the master")
            else:
                self.named[choice([one for one, name in self.named.items() if name != self.master])] = self.master


class _Server(lines.RedisLine):
    """The way to a server that is the master, or was."""

    def __init__(self, sentinel, name):
        super().__init__(sentinel.faults, sentinel.port)
        self._sentinel, self._name = sentinel, name

    def execute(self, server, words, session):
        """See above."""
        self._sentinel.happens()
        first = words[0].upper()
        if self._sentinel.master != self._name:
            if first == b"ROLE":
                return b"*5\r\n$5\r\nslave\r\n$2\r\nm0\r\n:6379\r\n$9\r\nconnected\r\n:1\r\n"
            if first not in KEYLESS:
                return b"-READONLY You can't write against a read only replica.\r\n"
        return super().execute(server, words, session)


class _Guard(lines.RedisLine):
    """The way to a sentinel."""

    def __init__(self, sentinel, name):
        super().__init__(sentinel.faults, sentinel.port)
        self._sentinel, self._name = sentinel, name

    def execute(self, server, words, session):
        """See above."""
        if words[0].upper() != b"SENTINEL":
            return super().execute(server, words, session)
        self._sentinel.happens()
        master = self._sentinel.named[self._name].encode()
        return b"*2\r\n$%d\r\n%s\r\n$4\r\n%d\r\n" % (len(master), master, PORT)
