"""This package's name in diffusers' tables of quantizers, from the moment that both are imported.

`import edadm` imports neither torch nor diffusers, which take seconds. So the tables are filled at once where
they are there already, and when diffusers is imported otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TABLES = "diffusers.quantizers.auto"
METHOD = "edadm"


def register() -> None:
    """Lets `from_pretrained` of diffusers' own classes load quantized U-Nets."""
    if (tables := sys.modules.get(TABLES)) is not None:
        _fill(tables)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _fill(tables: Any) -> None:
    """Adds a row to both tables, unless diffusers has one."""
    ours = import_module("edadm.deploy.quantizer")
    tables.AUTO_QUANTIZER_MAPPING.setdefault(METHOD, ours.EdadmQuantizer)
    tables.AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(METHOD, ours.EdadmConfig)


class _Finder(MetaPathFinder):
    """Waits for the tables."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TABLES:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = _Filling(found.loader)
        return found


class _Filling(Loader):
    """The loader that the tables have, and what follows it."""

    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        _fill(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)  # what else loaders can do
