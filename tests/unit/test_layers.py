"""Each layer imports only from layers with a smaller number: the picture in docs/architecture.md, kept true.

No circles, no long modules.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "vppaio"
GROUND = {"settings", "routes", "config", "private"}  # modules, no folder: 0, and may import each other
LAYERS = {
    **dict.fromkeys(GROUND, 0),
    "vcl": 1,
    "reactor": 2,
    "transports": 3,
    "tls": 4,
    "loop": 5,
    "cli": 6,
    "testing": 6,
}
TOP = 6  # vppaio/*.py, cli and testing: what users import and run
_CIMPORT = re.compile(
    r"^[ \t]*(?:from\s+(vppaio[\w.]*)\s+c?import\s+([^\n(]+|\([^)]*\))|c?import\s+(vppaio[\w.]*))", re.MULTILINE
)


def layer_of(module: str) -> int:
    """Number of the layer that "vppaio.transports.stream" belongs to."""
    _, *path = module.split(".")
    return LAYERS.get(path[0], TOP) if path else TOP


def own_modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd", ".pyi"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Modules of vppaio that a file imports, wherever in the file, and for type checkers too."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        found = set()
        for source, names, plain in _CIMPORT.findall(text):
            words = [name.split()[0] for name in names.strip("()\n ").split(",") if name.strip()]
            found |= {plain} if plain else expand(source, words)
        return found
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vppaio"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if (node.module or "").split(".")[0] == "vppaio":
                found |= expand(node.module or "", [alias.name for alias in node.names])
    return found


def expand(source: str, names: list[str]) -> set[str]:
    """`from vppaio.loop import connect` means vppaio.loop.connect, `from vppaio.config import Config` vppaio.config."""
    folder = PACKAGE.parent.joinpath(*source.split("."))
    return {f"{source}.{name}" if folder.is_dir() else source for name in names}


@pytest.mark.parametrize("path", own_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layer_imports_only_from_below(path: Path) -> None:
    own = layer_of(module_name(path))
    for imported in imports_of(path):
        same = own == layer_of(imported) == 0 or imported.split(".")[1:2] == module_name(path).split(".")[1:2]
        below = layer_of(imported) < own
        assert below or same or own == TOP, f"layer {own} imports {imported} of layer {layer_of(imported)}"


def test_all_folders_are_layers() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == LAYERS.keys() - GROUND


def test_imports_are_found() -> None:
    """A rule that finds nothing to judge is kept by everybody."""
    assert "vppaio.reactor.session" in imports_of(PACKAGE / "transports" / "stream.pyx")
    assert "vppaio.vcl.ops" in imports_of(PACKAGE / "reactor" / "poller.pyx")
    assert "vppaio.transports.stream" in imports_of(PACKAGE / "loop" / "eventloop.py")


def test_nothing_below_the_loop_knows_the_loop() -> None:
    for path in own_modules():
        if layer_of(module_name(path)) < LAYERS["loop"]:
            assert "vppaio.loop" not in path.read_text(), path


# ---- no circles ------------------------------------------------------------------------------------------------------


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or through others."""
    reachable = {module: set(targets) for module, targets in imports.items()}
    for middle in imports:  # Warshall's: 60 modules
        for module in imports:
            if middle in reachable[module]:
                reachable[module] |= reachable[middle]
    groups = {
        tuple(sorted(other for other in imports if other in reachable[module] and module in reachable[other]))
        for module in imports
        if module in reachable[module]
    }
    return [list(group) for group in sorted(groups)]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_through_others() -> None:
    """What only type checkers import counts, too."""
    imports: dict[str, set[str]] = {}
    for path in own_modules():
        imports.setdefault(module_name(path), set()).update(imports_of(path) - {module_name(path)})
    assert circles({module: targets & imports.keys() for module, targets in imports.items()}) == []


# ---- sizes -----------------------------------------------------------------------------------------------------------

MOST_LINES = 400
TOO_LONG = {"transports/stream.pyx", "vcl/vpp_segments.c"}  # each has a second subject to be found


def test_modules_are_small() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h")]
    long = {str(path.relative_to(PACKAGE)) for path in files if len(path.read_text().splitlines()) > MOST_LINES}
    assert long - TOO_LONG == set(), f"more than {MOST_LINES} lines"
    assert TOO_LONG - long == set(), "not too long any more: take it off the list"
