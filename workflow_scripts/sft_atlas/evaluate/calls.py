"""Calls between the process that runs a program and the process that tests it, which do not share memory and do not trust each other.

A message is eight bytes of length and JSON. Values cross as plain data of exact types: what arrives is an ``int`` or a ``list``, never an
instance of a class that the sender made up, so the receiver's ``==`` decides. Anything else stays where it is, and the receiver gets a
:class:`Remote` that asks for its attributes, calls and items, and is equal to nothing but itself. Standard library only: this is imported
inside the jail.
"""

import builtins
import json
import os
import struct
import sys
from collections import deque

MESSAGE_LIMIT = 64 * 2**20  # bytes
WORD = 2**63  # integers beyond it cross in hexadecimal, which has no limit of digits
SCALARS = (type(None), bool, float, str)
# The content of a value of each type, whatever a subclass overrides.
CONTENT = {
    str: str.__str__, int: int.__index__, float: float.__float__, list: list.__iter__, tuple: tuple.__iter__, dict: dict.items,
    set: set.__iter__, frozenset: frozenset.__iter__, bytes: bytes.hex, bytearray: bytearray.hex, complex: complex.__complex__,
}  # fmt: skip
# Types of the standard library that cross by value: the arguments that make an equal one.
STANDARD = {
    "collections.deque": lambda value: [list(value)],
    "decimal.Decimal": lambda value: [str(value)],
    "fractions.Fraction": lambda value: [value.numerator, value.denominator],
    "datetime.date": lambda value: [value.year, value.month, value.day],
    "datetime.time": lambda value: [value.hour, value.minute, value.second, value.microsecond],
    "datetime.datetime": lambda value: [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond],
    "datetime.timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
# What may be asked of an object that stays on the other side. Comparison and arithmetic are left out: they are the judge's.
OPERATIONS = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "name": lambda namespace, name: namespace[name],
    "get": getattr, "set": setattr, "iter": iter, "next": next, "len": len, "item": lambda value, key: value[key],
    "isinstance": lambda kind, value: isinstance(value, kind), "true": bool, "str": str, "repr": repr,
}  # fmt: skip
PASSED_BY_TESTS = ("call", "iter", "next")  # what a program may ask of functions and iterators that the tests pass to it


class Ended(BaseException):
    """The process on the other side has ended."""


class Unsupported(BaseException):
    """The tests pass something to the program that cannot leave their process."""


class Remote:
    """An object of the other process. Comparisons are by identity; it has no arithmetic and no order."""

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: "Peer", number: int):
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments, **named):
        return self._peer.ask("call", self, *arguments, **named)

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self._peer.ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._peer.ask("set", self, name, value)

    def __iter__(self):
        iterator = self._peer.ask("iter", self)
        if iterator is self:
            return self
        return _items(iterator) if isinstance(iterator, Remote) else iter(iterator)

    def __next__(self):
        return self._peer.ask("next", self)

    def __len__(self):
        return self._peer.ask("len", self)

    def __getitem__(self, key: object):
        return self._peer.ask("item", self, key)

    def __instancecheck__(self, value: object):
        return self._peer.ask("isinstance", self, value)

    def __bool__(self):
        return self._peer.ask("true", self)

    def __str__(self):
        return self._peer.ask("str", self)

    def __repr__(self):
        return self._peer.ask("repr", self)


def _items(iterator: Remote):
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return


class Peer:
    """One end of the conversation. ``operations``: what the other end may ask of ``objects``, and of what is sent to it later."""

    def __init__(self, inlet: int, outlet: int, operations: tuple[str, ...] = tuple(OPERATIONS), objects: tuple = ()):
        self.inlet, self.outlet, self.operations = inlet, outlet, operations
        self.objects, self.numbers = list(objects), {}  # what the other end may refer to; id -> number
        self.remotes: dict[int, Remote] = {}
        self.errors: dict[str, type] = {}  # by its name, the stand-in for an exception that the program defines
        self.ended, self.unsupported = False, ""  # the second: the type of an object that the tests passed and that cannot cross

    # ------------------------------------------------------------ messages

    def ask(self, operation: str, target: object, *arguments: object, **named: object) -> object:
        """Have the other process do something; its result, or the built-in exception that it raises. Ended where it has ended."""
        request = {"do": operation, "on": target._number if isinstance(target, Remote) else target}
        try:
            request["arguments"] = [self.encode(value) for value in arguments]
            request["named"] = {name: self.encode(value) for name, value in named.items()}
        except Unsupported as error:
            self.unsupported = str(error)
            raise
        self.send(request)
        return self.result(arguments)

    def result(self, arguments: tuple = ()) -> object:
        """Wait for a result. Meanwhile the other side may call functions that were passed to it.

        Lists, dictionaries and sets among ``arguments`` are changed as the function changed its copies, if it returned None.
        """
        while True:
            message = self.receive()
            if "do" in message:
                self.perform(message)
            elif "raised" in message:
                raise _exception(*message["raised"], self)
            else:
                value = self.decode(message["value"])
                for old, new in zip(arguments, message.get("changed", ()) if value is None else (), strict=False):
                    _replace(old, self.decode(new))
                return value

    def serve(self) -> None:
        """Do what the other side asks until it ends."""
        while True:
            self.perform(self.receive())

    def perform(self, request: dict) -> None:
        """Do one thing for the other side and send the result, or the exception."""
        try:
            if request["do"] not in self.operations:
                raise TypeError(f"{request['do']} is not possible on an object of the tests")
            arguments = [self.decode(value) for value in request["arguments"]]
            named = {name: self.decode(value) for name, value in request["named"].items()}
            value = OPERATIONS[request["do"]](self.objects[request["on"]], *arguments, **named)
            reply = {"value": self.encode(value)}
            if value is None and request["do"] == "call":
                reply["changed"] = [self.encode(argument) for argument in arguments]
        except Ended:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever the program raises is its answer)
            reply = {"raised": self.described(error)}
        self.send(reply)

    def described(self, error: BaseException) -> list:
        """An exception as its first built-in class, its arguments where they are plain, and the name of its own class."""
        arguments = error.args if all(type(value) in (*SCALARS, int) for value in error.args) else ()
        return [_built_in(type(error)).__name__, self.encode(arguments), type(error).__name__[:80]]

    def send(self, message: dict) -> None:
        """Send one message. Ended where nobody reads it."""
        content = json.dumps(message).encode()
        rest = memoryview(struct.pack(">Q", len(content)) + content)
        try:
            while rest:
                rest = rest[os.write(self.outlet, rest) :]
        except BrokenPipeError:
            self.ended = True
            raise Ended from None

    def receive(self) -> dict:
        """The next message. Ended where there is none; ValueError for one that is too long or malformed."""
        content = receive(self.inlet)
        if content is None:
            self.ended = True
            raise Ended
        return json.loads(content)

    # ------------------------------------------------------------ values

    def encode(self, value: object) -> object:
        """A value as JSON: scalars and lists as they are, everything else as an object with one key, its type."""
        kind = type(value)
        if kind in SCALARS:
            return value
        if kind is int:
            return value if -WORD < value < WORD else {"int": hex(value)}
        if kind is list:
            return [self.encode(entry) for entry in value]
        if kind is Remote and value._peer is self:
            return {"yours": value._number}
        if kind is range:
            return {"range": [self.encode(part) for part in (value.start, value.stop, value.step)]}
        if kind is type and getattr(builtins, value.__name__, None) is value:
            return {"type": value.__name__}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"error": [value.__name__[:80], _built_in(value).__name__]}
        if (name := f"{kind.__module__}.{kind.__qualname__}") in STANDARD and kind is getattr(
            sys.modules.get(kind.__module__), kind.__name__, None
        ):
            return {"standard": [name, [self.encode(part) for part in STANDARD[name](value)]]}
        base = next((base for base in CONTENT if base in kind.__mro__), None)
        if base is None:
            return {"mine": self.number(value)}
        content = CONTENT[base](value)
        if base in (str, int, float, list):
            return self.encode(list(content) if base is list else content)
        if base is dict:
            content = [[self.encode(key), self.encode(entry)] for key, entry in content]
        elif base is complex:
            content = [content.real, content.imag]
        elif base not in (bytes, bytearray):
            content = [self.encode(entry) for entry in content]
        return {base.__name__: content}

    def number(self, value: object) -> int:
        """The number under which the other side may refer to an object of this one."""
        if self.operations == PASSED_BY_TESTS and not (callable(value) or hasattr(value, "__next__")):
            raise Unsupported(type(value).__name__)
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def decode(self, item: object) -> object:
        """A value from JSON, of an exact type. ValueError, TypeError or KeyError for what :meth:`encode` does not write."""
        if not isinstance(item, dict):
            return [self.decode(entry) for entry in item] if isinstance(item, list) else item
        ((kind, content),) = item.items()
        if kind == "int":
            return int(content, 16)
        if kind in ("tuple", "set", "frozenset"):
            return getattr(builtins, kind)([self.decode(entry) for entry in content])
        if kind == "dict":
            return {self.decode(key): self.decode(value) for key, value in content}
        if kind in ("bytes", "bytearray"):
            return getattr(builtins, kind).fromhex(content)
        if kind == "complex":
            return complex(*map(float, content))
        if kind == "range":
            return range(*map(self.decode, content))
        if kind == "type" and isinstance(found := getattr(builtins, content), type):
            return found
        if kind == "error":
            name, base = content
            return self.errors.setdefault(name, type(name, (_exception_class(base),), {}))
        if kind == "standard" and content[0] in STANDARD:
            module, _, name = content[0].rpartition(".")
            return getattr(__import__(module), name)(*map(self.decode, content[1]))
        if kind == "yours":
            return self.objects[content]
        if kind == "mine" and type(content) is int:
            return self.remotes.setdefault(content, Remote(self, content))
        raise ValueError(f"a value of kind {kind}")


def receive(inlet: int) -> bytes | None:
    """The bytes of the next message, none beyond it; None at the end. ValueError for one longer than MESSAGE_LIMIT."""
    length = _exactly(inlet, 8)
    if length is None:
        return None
    (size,) = struct.unpack(">Q", length)
    if size > MESSAGE_LIMIT:
        raise ValueError(f"a message of {size} bytes")
    return _exactly(inlet, size)


def _exactly(inlet: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(inlet, min(size, 2**20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _replace(old: object, new: object) -> None:
    """Give a mutable argument the content that the function gave to its copy."""
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray | deque):
        old.clear()
        old.extend(new)
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


def _built_in(kind: type) -> type:
    """The first built-in class of an exception class."""
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _exception_class(name: str) -> type:
    """A built-in exception class by its name; Exception for any other name."""
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else Exception


def _exception(base: str, arguments: object, name: str, peer: Peer) -> BaseException:
    """An exception of the other side, of the class that stands in for its own or a built-in one; ``reported`` is its own class's name."""
    kind = peer.errors.get(name) or _exception_class(base)
    try:
        error = kind(*peer.decode(arguments))
    except TypeError:  # such as UnicodeDecodeError, which needs five arguments
        error = Exception()
    error.reported = str(name)[:80]
    return error
