"""b200sim with its tests for an observer cut out, or counted: what the hooks cost when nobody watches.

`cut()` or `count()`, called before b200sim is imported, rewrites the sources of `b200sim.isa` and
`b200sim.machine` while they are imported. Nothing is written to disk.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

PACKAGES = ("b200sim.isa.", "b200sim.machine.")
LEFT = ("b200sim.machine.spinning",)  # has an observer of its own, when all warps only poll
OBSERVER = "observer"
COUNTER = "__look_for_observer__"


def cut() -> None:
    """Remove every test for an observer, and every function that does nothing else."""
    _install(_without)


def count() -> Callable[[], int]:
    """Count the tests. Call the result to read the counter."""
    counter = [0]

    def look(grid: Any) -> Any:
        counter[0] += 1
        return grid.observer

    setattr(builtins, COUNTER, look)
    _install(lambda tree: _Counting().visit(tree))
    return lambda: counter[0]


def _install(rewrite: Callable[[ast.Module], ast.Module]) -> None:
    loaded = [name for name in sys.modules if name.startswith(PACKAGES)]
    if loaded:
        raise RuntimeError(f"{loaded[0]} is imported already; call this before anything of b200sim")
    sys.meta_path.insert(0, _Finder(rewrite))


class _Finder:
    def __init__(self, rewrite: Callable[[ast.Module], ast.Module]) -> None:
        self.rewrite = rewrite

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PACKAGES) or name in LEFT:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin, self.rewrite)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, rewrite: Callable[[ast.Module], ast.Module]) -> None:
        super().__init__(name, path)
        self.rewrite = rewrite

    def get_code(self, fullname: str) -> CodeType:
        """From the source always: cached bytecode is that of the original."""
        path = self.get_filename(fullname)
        tree = self.rewrite(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec")


class _Counting(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr != OBSERVER or not isinstance(node.ctx, ast.Load):
            return node
        return ast.Call(ast.Name(COUNTER, ast.Load()), [node.value], [])


def _without(tree: ast.Module) -> ast.Module:
    cutting = _Cutting()
    tree = cutting.visit(tree)
    empty = {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and _does_nothing(f)}
    tree = _Calls(empty & cutting.touched).visit(tree)
    for node in ast.walk(tree):
        left = isinstance(node, ast.Attribute) and node.attr == OBSERVER and isinstance(node.ctx, ast.Load)
        if left or (isinstance(node, ast.Name) and node.id in cutting.names):
            raise ValueError(f"line {node.lineno}: an observer is used in a way that this cannot cut out")  # type: ignore[attr-defined]
    return tree


def _does_nothing(function: ast.FunctionDef) -> bool:
    return all(
        isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in function.body
    )


def _is_observer(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == OBSERVER


class _Cutting(ast.NodeTransformer):
    """Folds `x.observer is not None` to False, through names that it is assigned to."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.touched: set[str] = set()  # functions that something was cut out of
        self.function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self.function = self.function, node.name
        self.generic_visit(node)
        self.function = outer
        node.body = node.body or [ast.Pass()]
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        target = node.targets[0]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
            if not any(_is_observer(value) for _, value in pairs):
                return self.generic_visit(node)
            kept = [(name, value) for name, value in pairs if not self._observer_name(name, value)]
            if len(kept) == 1:
                return ast.Assign([kept[0][0]], kept[0][1])
            target.elts, node.value.elts = [name for name, _ in kept], [value for _, value in kept]
            return node
        return None if self._observer_name(target, node.value) else self.generic_visit(node)

    def _observer_name(self, target: ast.expr, value: ast.expr) -> bool:
        if not (isinstance(target, ast.Name) and _is_observer(value)):
            return False
        self.names.add(target.id)
        self.touched.add(self.function)
        return True

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        left = node.left
        watched = _is_observer(left) or (isinstance(left, ast.Name) and left.id in self.names)
        if not watched or not isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            return node
        self.touched.add(self.function)
        return ast.Constant(isinstance(node.ops[0], ast.Is))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)
        if any(isinstance(value, ast.Constant) and value.value is decides for value in node.values):
            return ast.Constant(decides)
        return node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        node.test = self.visit(node.test)
        chosen = node
        if isinstance(node.test, ast.Constant) and isinstance(node.test.value, bool):
            return self._all(node.body if node.test.value else node.orelse)
        chosen.body = self._all(node.body) or [ast.Pass()]
        chosen.orelse = self._all(node.orelse)
        return chosen

    def _all(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in statements:
            new = self.visit(statement)
            found += new if isinstance(new, list) else [] if new is None else [new]
        return found


class _Calls(ast.NodeTransformer):
    """Removes statements that only call a function which does nothing."""

    def __init__(self, empty: set[str]) -> None:
        self.empty = empty

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        call = node.value
        gone = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in self.empty
        return None if gone else node
