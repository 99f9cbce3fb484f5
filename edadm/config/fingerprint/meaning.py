"""The meaning of a module's code: what of it can change a result.

All but comments, documentation, types of arguments, and sentences for people.
"""

from __future__ import annotations

import ast
from typing import TypeVar

_SPEAKING = frozenset({"say", "echo", "warn"})
_DOCUMENTING = frozenset({"help", "description"})
_SETTINGS = frozenset({"Strict", "BaseModel"})
_CHECKS = frozenset({"model_validator", "field_validator", "field_serializer"})
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_SENTENCES = 5  # sentences that are put together from sentences, so deep

Node = TypeVar("Node", bound=ast.AST)


def meaning_of(tree: Node) -> Node:
    """The tree without what changes no result; it is changed in place.

    Dropped are docstrings, types of arguments and results, imports for type checkers alone, help and
    description texts, what is said or raised, and text that only goes into that. Of classes of settings there
    remains what they compute: which values they allow and what these are without a user's word is in the
    parameters of each stage already.
    """
    tree = _Plain().visit(tree)
    scopes = [
        node for node in ast.walk(tree) if isinstance(node, ast.Module | _FUNCTIONS) and _has_sentences(node)
    ]
    for _ in range(_SENTENCES):
        if not sum([_silence(scope) for scope in scopes]):
            break
    return tree


def serialised(node: object) -> str:
    """A tree as text, the same under all versions of Python: fields that are empty are left out."""
    if isinstance(node, list):
        return f"[{','.join(map(serialised, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = (
        (name, value)
        for name, value in ast.iter_fields(node)
        if value not in (None, []) or isinstance(node, ast.Constant)
    )
    told = [f"{name}={serialised(value)}" for name, value in fields if name not in ("ctx", "kind")]
    return f"{type(node).__name__}({','.join(told)})"


class _Plain(ast.NodeTransformer):
    """Drops what is dropped wherever it stands."""

    def _body(self, node: Node) -> Node:
        body = node.body  # type: ignore[attr-defined]
        if (
            body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]  # type: ignore[attr-defined]
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Module(self, node: ast.Module) -> ast.Module:
        return self._body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        return self._body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.returns = None
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if {_name(base) for base in node.bases} & _SETTINGS or node.name in _SETTINGS:
            node.body = [part for part in node.body if isinstance(part, _FUNCTIONS) and not _is_check(part)]
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Names of types say what is allowed."""
        if isinstance(node.value, ast.Subscript) and _name(node.value.value) in ("Annotated", "Literal"):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if _name(node.test) == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg in _DOCUMENTING else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return _Silent().generic_visit(node) if _speaks(node) else node


class _Silent(ast.NodeTransformer):
    """Empties text."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Constant:
        return ast.Constant("")

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return ast.Constant("") if _is_empty(node.left) or _is_empty(node.right) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return ast.Constant("") if _is_empty(node.body) and _is_empty(node.orelse) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """What a piece of text makes of its arguments is text."""
        node = self.generic_visit(node)  # type: ignore[assignment]
        return (
            ast.Constant("") if isinstance(node.func, ast.Attribute) and _is_empty(node.func.value) else node
        )


def _silence(scope: ast.AST) -> bool:
    """Empties text in what has a name that only sentences use; says whether there was any.

    These are variables of a function, and private functions of a module.
    """
    alive = _names_used(scope)
    changed = False
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(scope, _FUNCTIONS):
            targets = {name for target in node.targets for name in _targets(target)}
            if not targets & (alive | {""}):
                changed |= _silenced(node)
        elif (
            isinstance(scope, ast.Module)
            and isinstance(node, _FUNCTIONS)
            and node.name.startswith("_")
            and node.name not in alive
        ):
            returned = [inner for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value]
            changed |= sum(map(_silenced, returned)) > 0
    return changed


def _has_sentences(scope: ast.AST) -> bool:
    return any(isinstance(node, ast.Call) and _speaks(node) for node in ast.walk(scope))


def _silenced(node: ast.Assign | ast.Return) -> bool:
    """Empties the text of a value; says whether there was any."""
    assert node.value is not None
    before = serialised(node.value)
    node.value = _Silent().visit(node.value)
    return serialised(node.value) != before


def _names_used(scope: ast.AST) -> set[str]:
    """Names that are read outside of sentences.

    Attributes and imported names too, since methods and other modules have the same ones.
    """
    used: set[str] = set()
    waiting = [scope]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        if not (isinstance(node, ast.Call) and _speaks(node)):
            waiting += ast.iter_child_nodes(node)
    return used


def _targets(target: ast.AST) -> set[str]:
    """Names that are bound; one of them empty where it is no plain name."""
    if isinstance(target, ast.Tuple):
        return {name for part in target.elts for name in _targets(part)}
    return {target.id if isinstance(target, ast.Name) else ""}


def _speaks(call: ast.Call) -> bool:
    name = _name(call.func)
    return name in _SPEAKING or name.endswith(("Error", "Warning"))


def _is_check(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(
        {_name(mark.func if isinstance(mark, ast.Call) else mark) for mark in function.decorator_list}
        & _CHECKS
    )


def _is_empty(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _name(node: ast.AST) -> str:
    """The last part of a dotted name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
