"""The code of a stage: its function in `stages`, what this names there, and all modules that these import.

Of each counts what can change a result (`meaning`), of data files beside a module those that it names, and
modules that a table names as if it imported them.
Some modules change no result at all: they say, check and refuse, or write and lock files. Code of GPUs, which
are the modules that import Triton, the backend that calls them, and what only these import, is a part of its
own: it counts for what was made on a GPU.
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
WITHOUT_RESULT = (  # modules, and packages with a "/", that stages import and that change no result
    *("errors.py", "console.py"),  # say
    *("artifacts/", "devices/", "config/fingerprint/"),  # keep files whole, and tell what made them
    "config/backends.py",  # which modules a backend's name means stands in `also`
    *("deploy/backends/fastest.py", "deploy/backends/kept.py"),  # likewise, and keep what can be made again
    "config/rules/steps.py",  # refuses, in sentences that it returns
    "config/files/downloads.py",  # says where files can be had; what they hold is in the parameters
)
FOREIGN = ("networks/weights/", "networks/layouts/")  # read files of other programs
# A table of which only the checks of settings make use in the other module: who computes by it imports it.
CHECKED_BY = {
    "config/methods.py": "config/schema/quantization.py",
    "networks/settings/families.py": "networks/settings/architecture.py",
}
CONVERTS = "convert"  # the stage for which these count; all others read what it wrote
OF_GPUS = ("deploy/backends/cuda_int8.py", "deploy/floats.py")  # beside modules that import Triton

_remembered: dict[Path, tuple[Path, str, dict[str, str]]] = {}

LONGEST_NAME = 64  # of a file that a module reads; a longer string is a sentence


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
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < LONGEST_NAME
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
    names = {text for text in _strings(_text(file)) if "." in text}
    found |= {named for name in names if (named := _module_file(name, package))}
    return found - {package / table for table, by in CHECKED_BY.items() if file == package / by}


def _is_among(file: Path, package: Path, entries: tuple[str, ...]) -> bool:
    path = file.relative_to(package).as_posix()
    return any(path == entry or (entry.endswith("/") and path.startswith(entry)) for entry in entries)


@cache
def _is_of_gpus(file: Path, package: Path) -> bool:
    names = {name for node in _import_statements(_text(file)) for name in _imported(node, file, package)}
    return "triton" in names or _is_among(file, package, OF_GPUS)


def _closure(files: set[Path], package: Path, without: tuple[str, ...], gpu: bool) -> set[Path]:
    """Files with all that they import, but for some; those of GPUs if `gpu`."""

    def counts(file: Path) -> bool:
        return not _is_among(file, package, without) and (gpu or not _is_of_gpus(file, package))

    reached: set[Path] = set()
    waiting = {file for file in files if counts(file)}
    while waiting:
        file = waiting.pop()
        reached.add(file)
        waiting |= {found for found in _imports_of(file, package) if counts(found)} - reached
    return reached


@cache
def _entry(stage: str, package: Path) -> tuple[str, frozenset[Path]]:
    """The code of a stage's function and of all in its file that it names, and the modules they import."""
    module, _, function = stage.partition(".")
    file = package / "stages" / f"{module}.py"
    defined = _definitions(_meaning(_text(file))) if file.is_file() else {}
    if (function or "run") not in defined:
        raise KeyError(f"there is no stage '{stage}'")
    reached: dict[str, ast.AST] = {}
    waiting = [function or "run"]
    while waiting:
        name = waiting.pop()
        if name in defined and name not in reached:
            reached[name] = defined[name]
            waiting += [node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)]
    code = "".join(f"{name}\n{serialised(node)}\n" for name, node in sorted(reached.items()))
    return code, frozenset(_imports(list(reached.values()), file, package))


def _definitions(module: ast.Module) -> dict[str, ast.AST]:
    """The statements of a module by the names that they define."""
    found: dict[str, ast.AST] = {}
    for node in module.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        else:
            stored = (part for part in ast.walk(node) if isinstance(part, ast.Name))
            names = [part.id for part in stored if isinstance(part.ctx, ast.Store)]
        found |= dict.fromkeys(names, node)
    return found


def stage_files(
    stage: str, package: Path = PACKAGE, also: tuple[str, ...] = (), gpu: bool = False
) -> set[Path]:
    """The modules that count for a stage; see `stage_fingerprint`.

    Raises:
        KeyError: there is no such stage.
    """
    files = set(_entry(stage, package)[1])
    files |= {named for module in also if (named := _module_file(module, package))}
    left_out = WITHOUT_RESULT + (() if stage == CONVERTS else FOREIGN)
    own = _closure(files, package, left_out, gpu=False)
    return _closure(files, package, left_out, gpu=True) - own if gpu else own


@cache
def _named_data(file: Path) -> set[Path]:
    """Files beside a module that are not code and whose names stand in it, and templates."""
    beside = {
        text for text in _strings(_text(file)) if "." in text and "/" not in text and not text.endswith(".py")
    }
    return {found for text in beside if (found := file.parent / text).is_file()} | set(
        file.parent.glob("*.j2")
    )


def stage_fingerprint(
    stage: str, package: Path = PACKAGE, also: tuple[str, ...] = (), gpu: bool = False
) -> str:
    """A hash of the code of a stage, e.g. `stage_fingerprint("set_ranges")`.

    Args:
        stage: its module; with the function, if that is not `run`, e.g. `generate.write_prompts`.
        package: where the code lies.
        also: modules by dotted name that the stage imports only with the options it is given, such as those
            of `edadm.config.backends`.
        gpu: the code that only GPUs run, instead of that which all run.

    Raises:
        KeyError: there is no such stage.
    """
    noted = _remembered.get(package)
    if noted is None:
        return _computed(stage, package, also, gpu)
    note, source, known = noted
    entry = " ".join((stage, *also, *["gpu"] * gpu))
    if entry not in known:
        known[entry] = _computed(stage, package, also, gpu)
        write_note(note, {"source": source, "stages": known})
    return known[entry]


def remember(note: Path, package: Path = PACKAGE) -> None:
    """Keeps fingerprints in a file from now on, where they count until a byte of the package changes."""
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


def noted_in(folder: str | None) -> None:
    """Keeps fingerprints in a folder of notes from now on, if there is one and nothing was said before."""
    if folder and PACKAGE not in _remembered:
        remember(Path(folder) / "fingerprints.json")


def _computed(stage: str, package: Path, also: tuple[str, ...], gpu: bool) -> str:
    digest = hashlib.sha256(b"" if gpu else _entry(stage, package)[0].encode())
    files = sorted(stage_files(stage, package, also, gpu))
    for file in files:
        digest.update(f"{file.relative_to(package)}\n{_code(_text(file))}\n".encode())
    for data in sorted({data for file in files for data in _named_data(file)}):
        digest.update(f"{data.relative_to(package)}\n".encode() + data.read_bytes())
    return digest.hexdigest()[:16]
