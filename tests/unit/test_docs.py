"""README and docs/ keep what they promise: references, links, names of functions and figures are true.

The table of settings: test_settings.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vppaio.loop import statistics

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vppaio"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "tests" / "README.md",
    ROOT / "benchmarks" / "README.md",
]
_CODE_SUFFIXES = (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".toml", ".md")
# "docs/vpp.md 4.4", or "docs/vpp.md 3, 4.4".
_REFERENCE = re.compile(r"docs/(\w+\.md),? (\d+(?:\.\d+)*(?:(?:, | and )\d+(?:\.\d+)*)*)")
_PRIVATE_NOTES = re.compile(r"\b(?:vcl-facts|worker-facts|tls-facts|peers\.md|design\.md|style\.md)\b")
_FUNCTION = re.compile(r"`([\w/]+\.(?:pyx|py|c|h)): (\w+(?:\.\w+)?)`")


def sources() -> list[Path]:
    """Code and pages of this repository."""
    found = []
    for folder in ("vppaio", "tests", "testbed", "benchmarks", "docs"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in _CODE_SUFFIXES]
    found += [path for path in ROOT.iterdir() if path.suffix in _CODE_SUFFIXES]
    return sorted(path for path in found if path != Path(__file__) and "__pycache__" not in path.parts)


def headings(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def section_numbers(page: Path) -> set[str]:
    return {match[1] for title in headings(page) if (match := re.match(r"(\d+(?:\.\d+)*)\.? ", title))}


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, without punctuation, dashes for blanks."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings(page)}


def references(text: str) -> list[tuple[str, str]]:
    """(page, section) of each reference; one may name several sections."""
    found = []
    for match in _REFERENCE.finditer(re.sub(r"\s+(?:[#*]+ +)?", " ", text)):
        found += [(match[1], number) for number in re.split(r", | and ", match[2])]
    return found


def test_references_are_found() -> None:
    """A rule that finds nothing to judge is kept by everybody."""
    assert references("(docs/vpp.md 4.4) and docs/vpp.md 3, 4, 9") == [
        ("vpp.md", "4.4"),
        *(("vpp.md", number) for number in ("3", "4", "9")),
    ]
    assert references("see docs/vpp.md\n * 5.7") == [("vpp.md", "5.7")]
    everywhere = [item for path in sources() for item in references(path.read_text())]
    assert len(everywhere) > 15


def test_every_reference_to_a_section_resolves() -> None:
    known = {page.name: section_numbers(page) for page in ROOT.glob("docs/*.md")}
    wrong = [
        f"{path.relative_to(ROOT)}: {page} {number}"
        for path in sources()
        for page, number in references(path.read_text(errors="replace"))
        if number not in known.get(page, ())
    ]
    assert not wrong


def test_nothing_refers_to_notes_that_are_not_in_the_repository() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources()
        if (match := _PRIVATE_NOTES.search(path.read_text(errors="replace")))
    ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists(), f"{target}: no such file"
        assert path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path), f"{target}: no such heading"


def test_functions_in_the_walks_exist() -> None:
    names = _FUNCTION.findall((ROOT / "docs" / "architecture.md").read_text())
    assert len(names) > 40
    wrong = []
    for file, name in names:
        path = PACKAGE / file
        text = path.read_text() if path.exists() else ""
        *owner, function = name.split(".")
        if path.suffix in (".c", ".h"):
            found = re.search(rf"^{function} ?\(", text, re.MULTILINE)
        elif owner:
            found = re.search(
                rf"^(?:cdef )?class {owner[0]}\b.*?^    (?:async def|def|cdef .*?) ?\b{function} ?\(",
                text,
                re.MULTILINE | re.DOTALL,
            )
        else:
            found = re.search(rf"^(?:(?:async )?def|(?:cdef )?class|cdef .*?) ?\b{function}\b", text, re.MULTILINE)
        if not found:
            wrong.append(f"{file}: {name}")
    assert not wrong


def test_every_statistic_is_in_operations() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for name, field in {**statistics.LOOP_FIELDS, **statistics.FIELDS}.items():
        kind = f"{field.kind}, {field.unit}" if field.unit else field.kind
        assert f"| `{name}` | {kind} | {field.meaning} |" in text


def test_every_difference_on_vpp_names_its_test() -> None:
    text = (ROOT / "docs" / "differences.md").read_text()
    _, _, *rows = re.findall(r"^\|.*\|$", text.partition("## VPP\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 12
    named = [name for row in rows for name in row.strip("|").split("|")[-1].strip().split(", ")]
    assert not [name for name in named if not (ROOT / "tests" / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    folders = "|".join(path.name for path in (ROOT / "tests").iterdir() if path.is_dir())
    named = re.findall(rf"\b(?:{folders})/\w+\.py\b", page.read_text())
    assert not [name for name in named if not (ROOT / "tests" / name).is_file()]


def test_every_folder_is_in_its_readme() -> None:
    text = (ROOT / "tests" / "README.md").read_text()
    there = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)) == there


def test_figures_are_those_of_the_files_of_results() -> None:
    results = ROOT / "benchmarks" / "results"
    text = (ROOT / "README.md").read_text()

    def printed(file: str, option: str) -> str:
        command = [sys.executable, "-m", "benchmarks", "--from", str(results / file), option]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    rows = re.findall(r"^\| .* us, .*\|$", text, re.MULTILINE)
    assert len(rows) >= 5
    made = printed("readme.json", "--markdown").splitlines()
    assert not [row for row in rows if row not in made]
    held, of = re.findall(r"^(\d+) of (\d+) goals are held$", printed("goals.json", "--goals"), re.MULTILINE)[0]
    assert f"{of} goals" in text
    assert f"{held} were held" in text


def test_sentences_below_the_table_are_those_of_the_file_of_results() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "readme.json").read_text())["rows"]
    text = " ".join((ROOT / "README.md").read_text().split())

    def row(candidate: str, connections: int, workload: str = "echo-protocol", special: str = "") -> dict[str, Any]:
        place = {"vppaio-vpp": "cut-through"}.get(candidate, "loopback")
        wanted = (workload, candidate, connections, ", ".join(filter(None, (place, special))))
        keys = ("workload", "candidate", "connections", "path")
        return next(found for found in measured if tuple(found[key] for key in keys) == wanted)

    few, many = (row("vppaio-vpp", n)["vpp_cpu_us"]["median"] for n in (32, 1000))
    assert f"used {few:.1f} us of CPU per message in the first row and {many:.1f} us in the second" in text
    sleeping, polling = row("vppaio-vpp", 32)["p50_us"], row("vppaio-vpp", 32, special="busy_poll_us=50")["p50_us"]
    assert f"latency was {polling:.0f} us with it and {sleeping:.0f} us without" in text
    lost = [("echo-streams", 32), ("echo-protocol", 1000)]
    for workload, connections in lost:
        ours, theirs = (row(name, connections, workload)["server_cpu_us"] for name in ("vppaio-host", "uvloop"))
        assert theirs["median"] < ours["median"]
    assert "uvloop used less CPU for streams, and at 1000 connections" in text
