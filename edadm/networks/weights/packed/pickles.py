"""What a pickle says, as inert data: nothing in it is imported, looked up, made or called.

`pickletools` of the standard library takes the bytes apart into instructions. The machine here follows them
on a stack of plain lists, dictionaries and tuples; where the pickle names a class or a function, or asks to
call one, it notes that.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Scalar = str | bytes | int | float | bool | None


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, by its module and name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Thing:
    """An object that a pickle would make: by what, from what, and what it would be filled with."""

    maker: Any
    arguments: Any = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        maker = self.maker
        for _ in range(8):  # what is called may be the result of a call
            maker = maker.maker if isinstance(maker, Thing) else maker
        by_copyreg = isinstance(maker, Name) and maker.module == "copyreg"
        if by_copyreg and isinstance(self.arguments, tuple) and self.arguments:
            maker = self.arguments[0]  # `copyreg._reconstructor(class, base, state)`
        return str(maker) if isinstance(maker, Name) else "an object without a class"


Call = Callable[[Any, Any], Any]

_DICTIONARIES = {
    *(Name("collections", name) for name in ("OrderedDict", "defaultdict", "Counter")),
    *(Name(module, "dict") for module in ("builtins", "__builtin__")),
}
_MARK = object()
_PLAIN = ("set", "frozenset", "list")
_SEQUENCES = {Name(module, name) for module in ("builtins", "__builtin__") for name in _PLAIN}
_OPERATING = {
    *(
        "os",
        "posix",
        "nt",
        "subprocess",
        "pty",
        "shutil",
        "socket",
        "runpy",
        "importlib",
        "ctypes",
        "webbrowser",
        "pip",
        "code",
    ),
    *("commands", "popen2", "_posixsubprocess", "imp", "pdb", "timeit", "asyncio"),
}
_BUILTINS = {"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"}


class HostileError(ValueError):
    """A pickle asks to call what no file of weights has to call."""


def _refuse_hostile(maker: Name) -> None:
    """Nothing is called in any case; a file that asks for this is not worth its weights."""
    package = maker.module.partition(".")[0]
    is_function = maker.name.rpartition(".")[2].islower() and maker.name != "stat_result"
    operates = package in _OPERATING and is_function
    if operates or (package in ("builtins", "__builtin__", "io", "_io") and maker.name in _BUILTINS):
        raise HostileError(f"it asks to call {maker}, as no file of weights does; nothing was executed")


def make(maker: Any, arguments: Any) -> Any:
    """What a call stands for: a plain collection, or a thing that notes what was asked for."""
    if isinstance(maker, Name):
        _refuse_hostile(maker)
    if not isinstance(maker, Name) or maker not in _DICTIONARIES | _SEQUENCES:
        return Thing(maker, arguments)
    given = arguments[0] if isinstance(arguments, tuple) and arguments else ()
    if maker in _SEQUENCES:
        return list(given) if isinstance(given, list | tuple) else []
    if isinstance(given, dict):
        return dict(given)
    pairs = given if isinstance(given, list | tuple) else ()
    return {as_key(pair[0]): pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2}


def as_key(value: Any) -> Any:
    """The value if it can be looked up at no risk, else a thing in its place: a deep tuple's hash is one."""
    if value is None or isinstance(value, str | bytes | int | float | complex | Name | Thing):
        return value
    if isinstance(value, tuple):
        flat = not any(isinstance(part, tuple) for part in value)
        if flat and all(as_key(part) is part for part in value):
            return value
    return Thing(Name("builtins", type(value).__name__))


def read_pickle(file: Any, persistent: Callable[[Any], Any], call: Call = make) -> Any:
    """The object of one pickle; the file stands behind it afterwards.

    Args:
        file: binary, or memory that is read like one; positioned at a pickle.
        persistent: what stands for an object outside the pickle, by its identifier.
        call: what stands for the result of a call, by callable and arguments.

    Raises:
        ValueError, LookupError, TypeError: no pickle, or a damaged one.
    """
    machine = _Machine(persistent, call)
    for instruction, argument, _ in pickletools.genops(file):
        machine.follow(instruction.name, argument)
    return machine.pop()


class _Machine:
    """A stack, marks in it, and a memo."""

    def __init__(self, persistent: Callable[[Any], Any], call: Call):
        self.persistent, self.call = persistent, call
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def popped(self) -> list[Any]:
        """The values above the last mark, in order, and the mark goes."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def follow(self, name: str, argument: Any) -> None:
        """One instruction; by `argument` alone those that push a value."""
        if handler := getattr(self, f"_{name.lower()}", None):
            handler(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _IGNORED:
            return
        elif name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in _GET:
            self.stack.append(self.memo[int(argument)])
        elif argument is not None and name not in _REFUSED:
            self.stack.append(argument)
        else:
            raise ValueError(f"instruction {name}")

    def _mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: None) -> None:
        self.stack.pop()

    def _pop_mark(self, _: None) -> None:
        self.popped()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self.popped()))

    def _tuple1(self, _: None) -> None:
        self.stack.append((self.pop(),))

    def _tuple2(self, _: None) -> None:
        last = self.pop()
        self.stack.append((self.pop(), last))

    def _tuple3(self, _: None) -> None:
        last = self.pop()
        middle = self.pop()
        self.stack.append((self.pop(), middle, last))

    def _list(self, _: None) -> None:
        self.stack.append(self.popped())

    def _frozenset(self, _: None) -> None:
        self.stack.append(self.popped())

    def _dict(self, _: None) -> None:
        values = self.popped()
        self.stack.append({as_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)})

    def _append(self, _: None) -> None:
        self._extend([self.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self.popped())

    def _additems(self, _: None) -> None:
        self._extend(self.popped())

    def _extend(self, values: list[Any]) -> None:
        onto = self.stack[-1]
        if isinstance(onto, list):
            onto.extend(values)
        elif isinstance(onto, Thing):
            onto.items.extend(values)
        else:
            raise TypeError(f"nothing can be appended to {type(onto).__name__}")

    def _setitem(self, _: None) -> None:
        value = self.pop()
        self._set([self.pop(), value])

    def _setitems(self, _: None) -> None:
        self._set(self.popped())

    def _set(self, values: list[Any]) -> None:
        onto = self.stack[-1]
        entries = onto.entries if isinstance(onto, Thing) else onto
        if not isinstance(entries, dict):
            raise TypeError(f"no items can be set in {type(onto).__name__}")
        entries.update((as_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Name(module, name))

    def _stack_global(self, _: None) -> None:
        name = self.pop()
        self.stack.append(Name(str(self.pop()), str(name)))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self.call(Name(module, name), tuple(self.popped())))

    def _obj(self, _: None) -> None:
        maker, *arguments = self.popped()
        self.stack.append(self.call(maker, tuple(arguments)))

    def _reduce(self, _: None) -> None:
        arguments = self.pop()
        self.stack.append(self.call(self.pop(), arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        named = self.pop()
        arguments = self.pop()
        built = self.call(self.pop(), arguments)
        self.stack.append(built)
        if isinstance(built, Thing):
            built.state = named

    def _build(self, _: None) -> None:
        state = self.pop()
        built = self.stack[-1]
        if isinstance(built, Thing):
            built.state = state  # dictionaries and tensors lose attributes that nobody reads

    def _persid(self, argument: str) -> None:
        self.stack.append(self.persistent(argument))

    def _binpersid(self, _: None) -> None:
        self.stack.append(self.persistent(self.pop()))


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_IGNORED = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_REFUSED = {"EXT1", "EXT2", "EXT4"}
