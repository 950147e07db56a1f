"""Python source in fewer bytes, same meaning: user data has room for 16,384.

Knows only the Python that the agent is written in: no ``global``, no ``exec``, and no access to
variables or private attributes by name in a text. The tests run what comes out, under 3.9 too.
"""

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from itertools import chain, product
from string import ascii_lowercase, ascii_uppercase
from types import ModuleType

_SPACED = re.compile(r" ?([-=+*/<>(){}\[\],:|%!]+) ?")
_COMPOUND = re.compile(r" *(if|for|while|def|class|try|with|else|elif|except|finally)\b")
_TEXT = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")

_INSTANCE_ATTRIBUTES = ("errno", "length", "pid", "reason", "returncode", "status", "strerror")
"""Of objects that the agent gets from the standard library; ``dir`` of their classes hides them."""


def minify(module: ast.Module, *, keep: set[str]) -> str:
    """Return the source of a stripped module; names in ``keep`` stay."""
    _inline_constants(module)
    _Renamer(module, keep).rename()
    _refuse_nested_texts(module)
    text = ast.unparse(ast.fix_missing_locations(module))
    lines = [_squeeze(line) for line in text.split("\n") if line]
    return "\n".join(_join(lines)) + "\n"


def _inline_constants(module: ast.Module) -> None:
    """Write the values of CONSTANTS where they are used."""
    found: dict[str, ast.Constant] = {}
    for node in list(module.body):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = node.value
                module.body.remove(node)
    _Inliner(found).visit(module)


class _Inliner(ast.NodeTransformer):
    """Replaces names by constants and joins the texts that then stand side by side."""

    def __init__(self, found: dict[str, ast.Constant]) -> None:
        self.found = found

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.found.get(node.id, node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        for position, part in enumerate(node.values):
            inner = part.value if isinstance(part, ast.FormattedValue) else None
            if isinstance(inner, ast.Constant):
                node.values[position] = ast.Constant(str(inner.value))
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        if len(texts) == len(node.values):
            return ast.Constant("".join(map(str, texts)))
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        parts = [getattr(side, "value", None) for side in (node.left, node.right)]
        if isinstance(node.op, ast.Add) and all(isinstance(part, str) for part in parts):
            return ast.Constant("".join(map(str, parts)))
        return node


def _refuse_nested_texts(module: ast.Module) -> None:
    """Refuse what Python 3.12 and later write down with quotes that 3.9 cannot read."""
    for node in ast.walk(module):
        if isinstance(node, ast.FormattedValue):
            for inner in ast.walk(node.value):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str | bytes):
                    message = f"move {inner.value!r} out of the braces of an f-string"
                    raise ValueError(message)  # noqa: TRY004 - of the source, not of an argument


def _short_names(first: str, second: str) -> Iterator[str]:
    pairs = ("".join(pair) for pair in product(first, second))
    return (name for name in chain(first, pairs) if name not in {"as", "if", "in", "is", "or"})


def _foreign_attributes(imported: set[str]) -> set[str]:
    """Return every attribute name that objects of the imported modules may have."""
    found = set(_INSTANCE_ATTRIBUTES)
    things = [import_module(name) for name in sorted(imported)] + list(vars(builtins).values())
    for thing in things:
        found.update(dir(thing))
        for value in list(vars(thing).values()) if isinstance(thing, ModuleType) else []:
            found.update(dir(value))
    return found


class _Names:
    """Which names a module defines, and which of them may be changed."""

    def __init__(self, module: ast.Module, keep: set[str]) -> None:
        nodes = list(ast.walk(module))
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {alias.name for node in imports for alias in node.names}
        modules = {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
        modules |= {a.name for node in imports if isinstance(node, ast.Import) for a in node.names}
        functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        members = [child for node in classes for child in node.body]
        fields = [child.target for child in members if isinstance(child, ast.AnnAssign)]
        self.methods = {id(node) for node in members if isinstance(node, ast.FunctionDef)}
        self.fields = {id(node) for node in fields}
        callable_here = {node.name for node in functions} | {node.name for node in classes}
        ours, others = _keywords(nodes, callable_here, {n.split(".")[0] for n in imported})
        self.kept = keep | {n.split(".")[0] for n in imported} | others | set(dir(builtins))
        self.uniform = self._map_uniform(module, ours)
        own = {node.name for node in functions if id(node) in self.methods}
        own |= {node.id for node in fields if isinstance(node, ast.Name)}
        own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_own(node)}
        own -= _foreign_attributes(modules) | {name for name in own if name.endswith("__")}
        self.attributes = self._map_attributes(nodes, own)

    def _map_uniform(self, module: ast.Module, keywords: set[str]) -> dict[str, str]:
        """Return new names for globals and for parameters that are given by keyword."""
        names = []
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.append(node.name)
            elif isinstance(node, ast.Assign):
                names += [name.id for name in node.targets if isinstance(name, ast.Name)]
        uses = Counter(_mentions(module))
        wanted = [name for name in [*names, *sorted(keywords)] if name not in self.kept]
        wanted.sort(key=lambda name: -uses[name])
        return dict(zip(wanted, _short_names(ascii_uppercase, ascii_lowercase), strict=False))

    @staticmethod
    def _map_attributes(nodes: list[ast.AST], own: set[str]) -> dict[str, str]:
        names = Counter(node.attr for node in nodes if isinstance(node, ast.Attribute))
        names.update(sorted(own))
        order = [name for name, _ in names.most_common() if name in own]
        letters = _short_names(ascii_lowercase + ascii_uppercase, ascii_lowercase)
        return dict(zip(order, letters, strict=False))


def _mentions(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg


def _is_own(node: ast.Attribute) -> bool:
    """Answer whether this is ``self.name = ...``."""
    owner = node.value
    return isinstance(node.ctx, ast.Store) and isinstance(owner, ast.Name) and owner.id == "self"


def _keywords(
    nodes: list[ast.AST], callable_here: set[str], imported: set[str]
) -> tuple[set[str], set[str]]:
    """Return the keywords that only calls to our functions use, and those of all other calls."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            function = node.func
            called = getattr(function, "id", None) or getattr(function, "attr", "")
            of_module = getattr(getattr(function, "value", None), "id", None) in imported
            target = ours if called in callable_here and not of_module else others
            target.update(str(keyword.arg) for keyword in node.keywords)
    return ours - others, others


class _Renamer:
    """Globals become capitals, locals small letters per function, attributes of ours letters."""

    def __init__(self, module: ast.Module, keep: set[str]) -> None:
        self.module = module
        self.names = _Names(module, keep)

    def rename(self) -> None:
        for node in self.module.body:
            self.local: dict[str, str] = {}
            self.letters = _short_names(ascii_lowercase, ascii_lowercase)
            if not isinstance(node, ast.ClassDef):
                self._rename(node)
                continue
            node.name = self._new(node.name)
            for part in [*node.bases, *node.body]:
                self.local = {}
                self.letters = _short_names(ascii_lowercase, ascii_lowercase)
                self._rename(part)

    def _new(self, name: str) -> str:
        names = self.names
        if name in names.kept:
            return name
        if name in names.uniform:
            return names.uniform[name]
        if name not in self.local:
            self.local[name] = next(short for short in self.letters if short not in names.kept)
        return self.local[name]

    def _rename(self, root: ast.AST) -> None:
        attributes = self.names.attributes
        for node in ast.walk(root):
            match node:
                case ast.Name():
                    field = id(node) in self.names.fields
                    node.id = attributes.get(node.id, node.id) if field else self._new(node.id)
                case ast.arg():
                    node.arg = self._new(node.arg)
                case ast.keyword() if node.arg:
                    node.arg = self.names.uniform.get(node.arg, node.arg)
                case ast.Attribute():
                    node.attr = attributes.get(node.attr, node.attr)
                case ast.ExceptHandler() if node.name:
                    node.name = self._new(node.name)
                case ast.FunctionDef():
                    method = id(node) in self.names.methods
                    node.name = (
                        attributes.get(node.name, node.name) if method else self._new(node.name)
                    )
                case _:
                    pass


def _squeeze(line: str) -> str:
    """Drop spaces around operators, outside of texts; one space per level of indentation."""
    code = line.lstrip(" ")
    parts = _TEXT.split(code)
    parts[::2] = [_SPACED.sub(r"\1", part) for part in parts[::2]]
    return " " * ((len(line) - len(code)) // 4) + "".join(parts)


def _join(lines: list[str]) -> list[str]:
    """Put simple statements of one block on one line, behind its colon if there is no other."""
    joined: list[str] = []
    for line in lines:
        above = joined[-1] if joined else ""
        both_simple = not _COMPOUND.match(line) and not _COMPOUND.match(above)
        if above and both_simple and _depth(line) == _depth(above):
            joined[-1] += ";" + line.lstrip(" ")
        else:
            joined.append(line)
    blocks: list[str] = []
    for number, line in enumerate(joined):
        above = blocks[-1] if blocks else ""
        after = joined[number + 1] if number + 1 < len(joined) else ""
        only = above.endswith(":") and _depth(above) < _depth(line) > _depth(after)
        if only and not _COMPOUND.match(line):
            blocks[-1] += line.lstrip(" ")
        else:
            blocks.append(line)
    return blocks


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
