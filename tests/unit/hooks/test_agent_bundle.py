"""The agent in one file: complete, small, without what only people read."""

import ast
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from airflow_ephemeral_ec2.hooks.agent_bundle import Stripper, agent_sha256, agent_source
from airflow_ephemeral_ec2.hooks.agent_minify import minify


def small(source: str, keep: set[str] | None = None) -> str:
    tree = ast.parse(source)
    Stripper().visit(tree)
    return minify(tree, keep=keep or {"main"})


def run(source: str) -> object:
    space: dict[str, object] = {}
    exec(source, space)
    return space["main"]()


def test_the_agent_is_one_file_of_the_standard_library():
    tree = ast.parse(agent_source())

    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name.split(".")[0]
        for node in imports
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert names <= sys.stdlib_module_names
    assert "airflow_ephemeral_ec2" not in agent_source()


def test_the_agent_is_python_3_9():
    ast.parse(agent_source(), feature_version=(3, 9))


def test_the_agent_has_about_nine_hundred_lines_at_most():
    written_out = ast.unparse(ast.parse(agent_source()))

    assert len([line for line in written_out.split("\n") if line]) <= 900


def test_the_agent_defines_main():
    names = [n.name for n in ast.parse(agent_source()).body if isinstance(n, ast.FunctionDef)]

    assert "main" in names


def test_the_hash_is_that_of_the_source():
    assert agent_sha256() == sha256(agent_source().encode()).hexdigest()


def test_every_module_of_the_agent_travels():
    folder = Path(__file__).parents[3] / "airflow_ephemeral_ec2" / "agent"
    texts = [line for path in folder.glob("*.py") for line in path.read_text().splitlines()]

    assert len(list(folder.glob("*.py"))) > 10
    # One literal per module with effects: what is missing here would be missing on the machine.
    for literal in ("sysrq-trigger", "AssumeRole", "instance-action", "RuntimeMaxSec", "r:gz"):
        assert literal in agent_source()
        assert any(literal in text for text in texts)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("A = 5\ndef main(first=A, *, second=2):\n '''doc'''\n return first + second", 7),
        ("def f(limit, *, scale): return limit * scale\ndef main(): return f(2, scale=3)", 6),
        (
            ("class C:\n def __init__(self, value): self._value = value\n"
            " def twice(self): return self._value * 2\n"
            "def main(): return C(value=4).twice()"),
            8,
        ),
        ("import json\ndef main():\n data = json.dumps({'a': 1}, sort_keys=True)\n return data", '{"a": 1}'),
        ("def main():\n try:\n  raise ValueError('x  =  y')\n except ValueError as error:\n  return str(error)", "x  =  y"),
        ("def main():\n name = 'a'\n return f'{name} = {len(name)}  -  {name!r}'", "a = 1  -  'a'"),
        (
            ("from typing import NamedTuple\nclass P(NamedTuple):\n first: int\n second: int = 2\n"
            "def main(): return P(1).first + P(1).second"),
            3,
        ),
        ("def main():\n total = 0\n def add(amount):\n  return amount + total\n return add(1)", 1),
        ("def main():\n for n in (1, 2):\n  if n > 1:\n   return n\n else:\n  return 0", 2),
        ("def main():\n x = 1\n if x:\n  y = 2\n else:\n  y = 3\n  x = 4\n return x + y", 3),
        ("PREFIX = 'a'\ndef main(): return PREFIX + '/b' + f'{PREFIX}/c'", "a/ba/c"),
        ("def main():\n if (size := len('abc')) > 2: return -size\n return 0", -3),
    ],
)  # fmt: skip
def test_small_code_means_the_same(source: str, value: object):
    assert run(small(source)) == value


def test_names_annotations_and_docstrings_shrink():
    source = "def main(argument: int) -> int:\n '''Say.'''\n long_name: int = argument\n return long_name"

    assert small(source) == "def main(a):b=a;return b\n"


def test_attributes_of_other_libraries_keep_their_names():
    source = (
        "import threading\nclass Own:\n def wait(self): return self.is_set\n"
        " def mine(self): self.is_set = threading.Event().is_set()\ndef main(): return Own()"
    )

    assert "is_set" in small(source)
    assert "wait" in small(source)
    assert "mine" not in small(source)


def test_quotes_that_only_new_pythons_can_nest_are_refused():
    with pytest.raises(ValueError, match="move 'key' out of the braces"):
        small("def main(): return f\"{dict(key=1)['key']}\"")
