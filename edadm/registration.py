"""This package's name in diffusers' tables of quantizers, and its classes, once both are imported.

`import edadm` imports neither torch nor diffusers, which take seconds. So what is to be done is done at
once where modules of diffusers are there already, and when they are imported otherwise. Pipelines that name
a class of this package are loaded only where its module has been imported: diffusers imports none because a
folder names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TABLES = "diffusers.quantizers.auto"
PIPELINES = "diffusers.pipelines.pipeline_loading_utils"
METHOD = "edadm"


def register() -> None:
    """Lets `from_pretrained` of diffusers' own classes and pipelines load quantized networks."""
    for name, follow in _FOLLOWING.items():
        if (module := sys.modules.get(name)) is not None:
            follow(module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _fill(tables: Any) -> None:
    """Adds a row to both tables, unless diffusers has one."""
    ours = import_module("edadm.deploy.quantizer")
    tables.AUTO_QUANTIZER_MAPPING.setdefault(METHOD, ours.EdadmQuantizer)
    tables.AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(METHOD, ours.EdadmConfig)


def _import_classes(_: Any) -> None:
    import_module("edadm.deploy.diffusers")


_FOLLOWING: dict[str, Callable[[Any], None]] = {TABLES: _fill, PIPELINES: _import_classes}


class _Finder(MetaPathFinder):
    """Waits for the modules of diffusers after which something is to be done."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _FOLLOWING:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = _Followed(found.loader)
        return found


class _Followed(Loader):
    """The loader that a module has, and what follows it."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        _FOLLOWING[module.__name__](module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)  # what else loaders can do
