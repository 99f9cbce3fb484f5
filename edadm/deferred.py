"""What diffusers imports and a command does not use is left until somebody uses it.

`from diffusers.models.unets.unet_2d import UNet2DModel` runs the `__init__` of the packages above it, which
import every network that diffusers has, half of transformers, and torch's compiler: two thousand modules, and
most of the time in which a short command starts. After `defer` such an `__init__` runs when a name is asked
for that only it has, and classes that the compiler wants to know of are told to it when it is imported.
Functions that torch keeps the compiler out of, by asking it, are called as they are until it is there.
Nobody sees a difference but the clock.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Packages, and names that are asked for all the same, with the module of the package that has them, or that
# they name.
PACKAGES: Mapping[str, Mapping[str, str]] = {
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "diffusers.models.autoencoders": {},
    "diffusers.hooks": {},
    "torchvision": {"transforms": "transforms", "__version__": "version"},
    "diffusers.quantizers": {"DiffusersAutoQuantizer": "auto", "DiffusersQuantizer": "base"},
}
MARKING = (
    "diffusers.utils.torch_utils",
    "diffusers.hooks.group_offloading",
)  # import it for decorators alone
COMPILER = "torch._dynamo"
KEEPING_OUT = "torch._compile"  # has the decorator that imports the compiler, in order to keep it out
_KEPT_OUT = "__dynamo_disable"  # where that notes with a function what it calls instead


def defer() -> None:
    """Leaves these packages alone from now on, where they are not imported yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self._loaders: dict[str, type[_Instead]] = dict.fromkeys(PACKAGES, _OfPackage)
        self._loaders[COMPILER] = _OfCompiler
        self._loaders[KEEPING_OUT] = _OfDecorator
        self._loaders |= dict.fromkeys(MARKING, _OfMarks)
        self._marked: list[type] = []
        self._plain: list[Callable[..., Any]] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname in self._loaders else None
        if found is not None and found.loader is not None:
            found.loader = self._loaders[fullname](found.loader, self._marked, self._plain)
        return found


class _Instead(Loader):
    """A loader around the one that a module has."""

    def __init__(self, own: Loader, marked: list[type], plain: list[Callable[..., Any]]) -> None:
        self.own, self.marked, self.plain = own, marked, plain

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)  # what else loaders can do, such as reading files beside a module


class _OfPackage(_Instead):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run, see `_Package`."""


class _Package(ModuleType):
    """A package whose `__init__` has not run."""

    def __getattr__(self, name: str) -> Any:
        if place := PACKAGES[self.__name__].get(name):
            module = importlib.import_module(f"{self.__name__}.{place}")
            return module if place == name else getattr(module, name)
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.own.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


class _OfMarks(_Instead):
    def exec_module(self, module: ModuleType) -> None:
        """Marks are noted while the compiler is not there."""
        if COMPILER in sys.modules:
            return self.own.exec_module(module)
        noting = ModuleType(COMPILER)
        noting.allow_in_graph, noting.disable = self._note, _disable  # type: ignore[attr-defined]
        sys.modules[COMPILER] = noting
        try:
            self.own.exec_module(module)
        finally:
            del sys.modules[COMPILER]
        return None

    def _note(self, marked: Any) -> Any:
        compiler = sys.modules.get(COMPILER)
        if (
            compiler is not None and compiler.__spec__ is not None
        ):  # and not one that notes, of a module above
            return compiler.allow_in_graph(marked)
        self.marked.append(marked)
        return marked


def _disable(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """torch's own decorator, which imports the compiler when the function is called."""
    from torch._compile import _disable_dynamo

    return _disable_dynamo(function, recursive)


class _OfDecorator(_Instead):
    def exec_module(self, module: ModuleType) -> None:
        """What it is put on is called as it is, as long as nothing can be compiled."""
        self.own.exec_module(module)
        own = module._disable_dynamo

        def decorator(function: Any = None, recursive: bool = True) -> Any:
            made = own(function, recursive)
            if function is not None and COMPILER not in sys.modules:
                setattr(function, _KEPT_OUT, function)
                self.plain.append(function)
            return made

        module._disable_dynamo = decorator  # type: ignore[attr-defined]


class _OfCompiler(_Instead):
    def exec_module(self, module: ModuleType) -> None:
        """Tells it of the classes that were noted, and of functions when they are called."""
        while self.plain:
            delattr(self.plain.pop(), _KEPT_OUT)
        self.own.exec_module(module)
        for marked in self.marked:
            module.allow_in_graph(marked)
