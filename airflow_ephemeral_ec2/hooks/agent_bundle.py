"""The agent as one file: its modules and the contract, without what only people read.

Reads the package's own sources (the agent is never imported), in the order that its imports ask
for, and keeps what ``main`` needs. ``agent_minify`` then makes it small. The text depends on the
Python that makes it (``ast.unparse``); that does no harm, since a launch record keeps the rendered
user data and replays send the record's bytes.
"""

import ast
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files

from airflow_ephemeral_ec2.hooks.agent_minify import minify

PACKAGE = "airflow_ephemeral_ec2"
ENTRY = "agent.__main__"


@lru_cache(maxsize=1)
def agent_source() -> str:
    """Return the agent as Python 3.9 source that defines ``main(blob, agent_sha256)``."""
    modules: dict[str, ast.Module] = {}
    _collect(ENTRY, modules)
    body = [node for module in modules.values() for node in module.body]
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    code = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]
    _refuse_duplicates(code)
    code = _reachable(code, "main")
    return minify(ast.Module(body=[*_merge(imports, code), *code], type_ignores=[]), keep={"main"})


def agent_sha256() -> str:
    """Return the hash that the agent puts into its report."""
    return sha256(agent_source().encode()).hexdigest()


def _collect(name: str, modules: dict[str, ast.Module]) -> None:
    """Parse a module after those that it imports."""
    *folders, last = name.split(".")
    text = files(PACKAGE).joinpath(*folders, last + ".py").read_text(encoding="utf-8")
    kept = []
    tree = ast.parse(text)
    Stripper().visit(tree)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            if any(alias.asname for alias in node.names):
                message = f"{name} renames an import of the agent; in one file it has one name"
                raise ValueError(message)
            inner = str(node.module).removeprefix(PACKAGE + ".")
            if inner not in modules:
                _collect(inner, modules)
        else:
            kept.append(node)
    modules[name] = ast.Module(body=kept, type_ignores=[])


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {name.id for name in node.targets if isinstance(name, ast.Name)}
    return set()


def _used(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _refuse_duplicates(code: list[ast.stmt]) -> None:
    seen: set[str] = set()
    for node in code:
        again = _defined(node) & seen
        if again:
            message = f"two modules of the agent define {sorted(again)}; in one file one would win"
            raise ValueError(message)
        seen |= _defined(node)


def _reachable(code: list[ast.stmt], entry: str) -> list[ast.stmt]:
    """Keep what ``entry`` needs, and statements that define nothing."""
    wanted, size = {entry}, 0
    for node in code:
        if not _defined(node):
            wanted |= _used(node)
    while size != len(wanted):
        size = len(wanted)
        for node in code:
            if _defined(node) & wanted:
                wanted |= _used(node)
    return [node for node in code if not _defined(node) or _defined(node) & wanted]


def _merge(imports: list[ast.Import | ast.ImportFrom], code: list[ast.stmt]) -> list[ast.stmt]:
    """Return one line per imported module, sorted, and only what is used."""
    used = {name for node in code for name in _used(node)}
    plain: set[str] = set()
    members: dict[str, set[str]] = {}
    for node in imports:
        names = {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            plain |= {name for name in names if name.split(".")[0] in used}
        else:
            members.setdefault(str(node.module), set()).update(names & used)
    lines: list[ast.stmt] = [ast.Import([ast.alias(name) for name in sorted(plain)])]
    for module, found in sorted(members.items()):
        if found:
            lines.append(ast.ImportFrom(module, [ast.alias(name) for name in sorted(found)], 0))
    return lines


class Stripper(ast.NodeTransformer):
    """Removes docstrings, annotations and typing blocks."""

    def visit(self, node: ast.AST) -> ast.AST:
        node = super().visit(node)
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                left = [child for child in body if not _is_text(child)]
                setattr(node, field, left or ([ast.Pass()] if body else []))
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for child in node.body:
            if isinstance(child, ast.AnnAssign):
                child.annotation = ast.Constant(None)  # NamedTuple wants one, any will do
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(node.annotation, ast.Constant):
            return node
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
