"""Which code a stage consists of, as one hash: Snakemake sees it in `params` and reruns the stage when it changes.

The code of a stage is the function of its subcommand, the functions of `commands` that it calls, and every module of
the package that these import, directly or not. Comments, docstrings and formatting do not count.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


@cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body and _is_docstring(body[0]):
            node.body = body[1:]
    return tree


@cache
def _code(path: Path) -> str:
    return ast.dump(_tree(path))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _module_file(name: str, package: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    base = package.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(nodes: list[ast.AST], package: Path) -> set[Path]:
    """Files of the package that are imported anywhere inside the nodes."""
    names: set[str] = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {file for name in names if (file := _module_file(name, package))}


@cache
def _imports_of(file: Path, package: Path) -> set[Path]:
    return _imports([_tree(file)], package)


def _closure(files: set[Path], package: Path) -> set[Path]:
    reached: set[Path] = set()
    while waiting := files - reached:
        file = waiting.pop()
        reached.add(file)
        files = files | _imports_of(file, package)
    return reached


@cache
def _functions(package: Path) -> dict[str, ast.FunctionDef]:
    """The functions of `commands` by name, which each must have for itself."""
    found = [node for file in sorted((package / "commands").glob("*.py")) for node in _tree(file).body if isinstance(node, ast.FunctionDef)]
    known = {function.name: function for function in found}
    assert len(known) == len(found), "two functions of `commands` have one name"
    return known


def _called_functions(function: str, known: dict[str, ast.FunctionDef], without: str) -> dict[str, ast.FunctionDef]:
    """A function and those whose names occur in it, in turn, but for one."""
    reached: dict[str, ast.FunctionDef] = {}
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in known and name not in reached and name != without:
            reached[name] = known[name]
            waiting += [node.id for node in ast.walk(known[name]) if isinstance(node, ast.Name)]
    return reached


def stage_files(stage: str, package: Path = PACKAGE, without: str = "") -> set[Path]:
    """The modules a stage imports, directly or not; see `stage_fingerprint`.

    Raises:
        KeyError: there is no such subcommand.
    """
    return _closure(_imports(list(_stage_functions(stage, package, without).values()), package), package)


def _stage_functions(stage: str, package: Path, without: str) -> dict[str, ast.FunctionDef]:
    functions = _called_functions(stage.replace("-", "_"), _functions(package), without)
    if not functions:
        raise KeyError(f"there is no subcommand '{stage}'")
    return functions


def stage_fingerprint(stage: str, package: Path = PACKAGE, without: str = "") -> str:
    """A hash of the code of a subcommand, e.g. `stage_fingerprint("set-ranges")`.

    Args:
        stage: the subcommand.
        package: where the code lies.
        without: a function of `commands` that the stage does not come to with the options it is given.
    """
    digest = hashlib.sha256()
    for name, function in sorted(_stage_functions(stage, package, without).items()):
        digest.update(f"{name}\n{ast.dump(function)}\n".encode())
    files = sorted(stage_files(stage, package, without))
    for file in files:
        digest.update(f"{file.relative_to(package)}\n{_code(file)}\n".encode())
    for template in sorted({template for file in files for template in file.parent.glob("*.j2")}):
        digest.update(template.read_bytes())
    return digest.hexdigest()[:16]
