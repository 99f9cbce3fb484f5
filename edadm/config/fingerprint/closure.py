"""The code of a stage: the function of its subcommand, the functions of `commands` that it calls, and every module of the package that
these import, directly or not.

Of each counts what can change a result (`meaning`), and of data files beside a module those that it names.
Some modules change no result at all: they say, check and refuse, or write and lock files.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from edadm.config.fingerprint.content import write_note
from edadm.config.fingerprint.meaning import meaning_of, serialised

PACKAGE = Path(__file__).parents[2]
SETTINGS = "config/schema.py"
WITHOUT_RESULT = (  # modules, and packages with a "/", that change no result
    *("__init__.py", "version.py", "errors.py", "console.py", "devices.py", "artifacts/"),
    *(
        "config/fingerprint/",
        "config/backends.py",  # which backend a name means stands in `also`
        "config/load.py",
        "config/check.py",
        "config/rules/",
        "config/inputs/settings.py",
    ),
    *("config/downloads.py", "config/fetch.py", "config/described/", "networks/described/"),
)
FOREIGN = (
    "networks/weights/",
    "networks/layouts/",
    "networks/described/",
)  # read files of other programs
# A table of which only the checks of settings make use in the other module: who computes by it imports it.
CHECKED_BY = {"config/methods.py": "config/schema.py"}
CONVERTS = "convert-checkpoint"  # the stage for which these count; all others read what it wrote
_LOADS = "config/load.py"  # reads presets, whose classes compute some sizes

Known = dict[str, ast.AST]

_remembered: dict[Path, tuple[Path, str, dict[str, str]]] = {}


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _meaning(text: str) -> ast.Module:
    return meaning_of(ast.parse(text))


@cache
def _code(text: str) -> str:
    return hashlib.sha256(serialised(_meaning(text)).encode()).hexdigest()


@cache
def _import_statements(text: str) -> list[ast.AST]:
    return [node for node in ast.walk(_meaning(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


@cache
def _strings(text: str) -> set[str]:
    return {
        node.value
        for node in ast.walk(_meaning(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@cache
def _module_file(name: str, package: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != package.name:
        return None
    base = package.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imported(node: ast.AST, file: Path, package: Path) -> set[str]:
    """Names of modules, and of what may be modules, that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    above = file.parents[node.level - 1].relative_to(package.parent).parts if node.level else ()
    module = ".".join([*above, *([node.module] if node.module else [])])
    return {module} | {f"{module}.{alias.name}" for alias in node.names}


def _imports(nodes: list[ast.AST], file: Path, package: Path) -> set[Path]:
    """Files of the package that are imported anywhere inside the nodes of a file."""
    names = {name for outer in nodes for node in ast.walk(outer) for name in _imported(node, file, package)}
    return {found for name in names if (found := _module_file(name, package))}


@cache
def _imports_of(file: Path, package: Path) -> set[Path]:
    found = _imports(_import_statements(_text(file)), file, package)
    return found - {package / table for table, by in CHECKED_BY.items() if file == package / by}


def _counts(file: Path, package: Path, without: tuple[str, ...]) -> bool:
    path = file.relative_to(package).as_posix()
    return not any(path == entry or (entry.endswith("/") and path.startswith(entry)) for entry in without)


def _closure(files: set[Path], package: Path, stage: str) -> set[Path]:
    without = WITHOUT_RESULT if stage == CONVERTS else WITHOUT_RESULT + FOREIGN
    reached: set[Path] = set()
    while waiting := files - reached:
        file = waiting.pop()
        reached.add(file)
        if _counts(file, package, without):
            files = files | _imports_of(file, package)
        elif file == package / _LOADS:
            files = files | {package / SETTINGS}
    return {file for file in reached if _counts(file, package, without)}


@cache
def _functions(package: Path) -> dict[str, tuple[ast.AST, frozenset[Path]]]:
    """The functions of `commands` by name, which each must have for itself, with the modules that their files import for them."""
    found: dict[str, tuple[ast.AST, frozenset[Path]]] = {}
    for file in sorted((package / "commands").rglob("*.py")):
        body = _meaning(_text(file)).body
        above = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        for function in (node for node in body if isinstance(node, ast.FunctionDef)):
            assert function.name not in found, f"two functions of `commands` have the name {function.name}"
            function.decorator_list = []  # they say what the subcommand is called
            used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            needed = [
                node
                for node in above
                if {alias.asname or alias.name.partition(".")[0] for alias in node.names} & used
            ]
            imports = _imports([function, *needed], file, package)
            found[function.name] = (
                function,
                frozenset(path for path in imports if not path.is_relative_to(package / "commands")),
            )
    return found


def _stage_functions(stage: str, package: Path) -> dict[str, tuple[ast.AST, frozenset[Path]]]:
    """The function of a subcommand and those whose names occur in it, in turn."""
    known = _functions(package)
    reached: dict[str, tuple[ast.AST, frozenset[Path]]] = {}
    waiting = [stage.replace("-", "_")]
    while waiting:
        name = waiting.pop()
        if name in known and name not in reached:
            reached[name] = known[name]
            waiting += [node.id for node in ast.walk(known[name][0]) if isinstance(node, ast.Name)]
    if not reached:
        raise KeyError(f"there is no subcommand '{stage}'")
    return reached


def stage_files(stage: str, package: Path = PACKAGE, also: tuple[str, ...] = ()) -> set[Path]:
    """The modules that count for a stage; see `stage_fingerprint`.

    Raises:
        KeyError: there is no such subcommand.
    """
    functions = _stage_functions(stage, package).values()
    named = {found for module in also if (found := _module_file(module, package))}
    return _closure({file for _, files in functions for file in files} | named, package, stage)


@cache
def _named_data(file: Path) -> set[Path]:
    """Files beside a module that are not code and whose names stand in it, and templates."""
    beside = {
        text for text in _strings(_text(file)) if "." in text and "/" not in text and not text.endswith(".py")
    }
    return {found for text in beside if (found := file.parent / text).is_file()} | set(
        file.parent.glob("*.j2")
    )


def stage_fingerprint(stage: str, package: Path = PACKAGE, also: tuple[str, ...] = ()) -> str:
    """A hash of the code of a subcommand, e.g. `stage_fingerprint("set-ranges")`.

    Args:
        stage: the subcommand.
        package: where the code lies.
        also: modules by dotted name that the stage imports only with the options it is given, such as those
            of `edadm.config.backends`.

    Raises:
        KeyError: there is no such subcommand.
    """
    noted = _remembered.get(package)
    if noted is None:
        return _computed(stage, package, also)
    note, source, known = noted
    entry = " ".join((stage, *also))
    if entry not in known:
        known[entry] = _computed(stage, package, also)
        write_note(note, {"source": source, "stages": known})
    return known[entry]


def remember(note: Path, package: Path = PACKAGE) -> None:
    """From now on keeps fingerprints in a file, from which the next process takes them if not a byte of the package has changed."""
    digest = hashlib.sha256()
    for file in sorted(file for file in package.rglob("*") if file.suffix in (".py", ".json", ".j2")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package)} {len(content)}\n".encode() + content)
    source, known = digest.hexdigest(), {}
    try:
        found = json.loads(note.read_text())
        known = dict(found["stages"]) if found["source"] == source else {}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    _remembered[package] = (note, source, known)


def _computed(stage: str, package: Path, also: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name, (function, _) in sorted(_stage_functions(stage, package).items()):
        digest.update(f"{name}\n{serialised(function)}\n".encode())
    files = sorted(stage_files(stage, package, also))
    for file in files:
        digest.update(f"{file.relative_to(package)}\n{_code(_text(file))}\n".encode())
    for data in sorted({data for file in files for data in _named_data(file)}):
        digest.update(f"{data.relative_to(package)}\n".encode() + data.read_bytes())
    return digest.hexdigest()[:16]
