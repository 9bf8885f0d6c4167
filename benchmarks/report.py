"""One HTML page that needs nothing else, and the charts in it as PNG files for README."""

from __future__ import annotations

import base64
import html
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import goals, tables
from benchmarks.candidates import NAMES
from benchmarks.results import Row

# Greys for the kernel's loops, blues for VPP under other hands, orange for vppaio: the eye finds what it came for, and
# so does one that sees no colours.
_COLOURS: Final = {
    "asyncio": "#b0b0b0",
    "uvloop": "#707070",
    "rloop": "#909090",
    "aiofastnet": "#c8c8c8",
    "vppaio-host": "#f4b183",
    "c-host": "#404040",
    "asyncio-ldp": "#9dc3e6",
    "vppaio-vpp": "#e06c00",
    "c-vpp": "#2e75b6",
}

Figure = Callable[[Row], float | None]


def _cpu(row: Row) -> float | None:
    return row.server_cpu_us and row.server_cpu_us.median


def _rate(row: Row) -> float | None:
    return row.rate and row.rate.median


def write(folder: str | Path, meta: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write index.html and PNG files; returns the page's path."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    charts = _charts(target, rows)
    page = target / "index.html"
    page.write_text(_page(meta, rows, charts), encoding="utf-8")
    return page


# ---- charts ----------------------------------------------------------------------------------------------------------


def _charts(folder: Path, rows: Sequence[Row]) -> list[Path]:
    try:
        import matplotlib as mpl
    except ImportError:
        print("no charts: matplotlib is missing", file=sys.stderr)
        return []
    mpl.use("Agg")
    plain = [row for row in rows if "," not in row.path]
    echo = [row for row in plain if row.workload == "echo-protocol"]
    base = [row for row in plain if row.size == 64 and row.connections == 32]
    made = [
        _bars(folder / "cpu.png", base, "server CPU per operation, 64 B, 32 connections (us)", _cpu),
        _bars(folder / "rate.png", base, "operations per second, 64 B, 32 connections", _rate),
        _lines(folder / "connections.png", [r for r in echo if r.size == 64], "connections", "64 B", _cpu),
        _lines(folder / "size.png", [r for r in echo if r.connections == 32], "size", "32 connections", _cpu),
        _bars(
            folder / "latency.png",
            [row for row in echo if row.connections == 1 and row.size == 64],
            "median latency, 64 B, 1 connection (us)",
            lambda row: row.p50_us,
        ),
    ]
    return [path for path in made if path]


def _bars(path: Path, rows: Iterable[Row], title: str, figure: Figure) -> Path | None:
    """A panel per workload, a bar per candidate."""
    import matplotlib.pyplot as plt

    panels: dict[str, dict[str, float]] = {}
    for row in rows:
        if (value := figure(row)) is not None:
            panels.setdefault(row.workload, {})[row.candidate] = value
    if not panels:
        return None
    columns = min(4, len(panels))
    height = -(-len(panels) // columns)
    shape = {"figsize": (3.2 * columns + 0.6, 2.3 * height + 0.5), "squeeze": False}
    drawing, axes = plt.subplots(height, columns, **shape)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (workload, values) in zip(axes.flat, panels.items(), strict=False):
        names = [name for name in reversed(NAMES) if name in values]
        bars = axis.barh(names, [values[name] for name in names], color=[_COLOURS[name] for name in names])
        axis.bar_label(bars, [tables.number(values[name]) for name in names], padding=2, fontsize=7)
        axis.set_title(workload, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.set_xticks([])
        axis.margins(x=0.2)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    return _save(drawing, path, title)


def _lines(path: Path, rows: Iterable[Row], key: str, rest: str, figure: Figure) -> Path | None:
    """A line per candidate over `key`, both axes logarithmic."""
    import matplotlib.pyplot as plt

    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if value := figure(row):
            lines.setdefault(row.candidate, []).append((getattr(row, key), value))
    if not any(len(points) > 1 for points in lines.values()):
        return None
    drawing, axis = plt.subplots(figsize=(6, 3.6))
    for name in NAMES:
        points = sorted(lines.get(name, ()))
        style = {"color": _COLOURS[name], "linewidth": 2.5 if name == goals.VPP else 1.2}
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(key if key == "connections" else "bytes of a message")
    axis.grid(alpha=0.3, which="both")
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7, ncols=2)
    return _save(drawing, path, f"echo-protocol, {rest}: server CPU per message (us)")


def _save(drawing: Any, path: Path, title: str) -> Path:
    import matplotlib.pyplot as plt

    drawing.suptitle(title, fontsize=10)
    drawing.tight_layout()
    drawing.savefig(path, dpi=130)
    plt.close(drawing)
    return path


# ---- the page --------------------------------------------------------------------------------------------------------

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px } td, th { padding: .15em .7em; border-bottom: 1px solid #ddd }
td:nth-child(n+4) { text-align: right } .goals td { text-align: left } img { max-width: 100%; display: block }
.own { background: #fff3e6 } .missed { color: #b00020; font-weight: bold } .why { color: #777; text-align: left }
pre { background: #f6f6f6; padding: 1em; overflow: auto; font-size: 12px }
"""


def _page(meta: Mapping[str, Any], rows: Sequence[Row], charts: Iterable[Path]) -> str:
    images = "\n".join(
        f'<img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        for path in charts
    )
    facts = "".join(f"<li>{_text(name)}: {_text(meta[name])}</li>" for name in ("machine", "kernel", "python", "vpp"))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>vppaio benchmarks</title>
<style>{_STYLE}</style>
<h1>vppaio benchmarks</h1>
<p>{_text(meta["date"])}, commit {_text(meta["commit"])}: <code>{_text(meta["command"])}</code></p>
<ul>{facts}</ul>
<p>Medians of {_text(meta["rounds"])} rounds in which the candidates took turns. CPU is the server's own, per operation;
VPP's own is in a column of its own. A row without numbers says why.</p>
{images}
{_goals(rows)}
<h2>All rows</h2>
{_rows(rows)}
<h2>Circumstances</h2><pre>{_text(json.dumps(dict(meta), indent=1))}</pre>
</html>
"""


def _text(value: object) -> str:
    return html.escape(str(value))


def _table(header: Sequence[str], lines: Iterable[str], kind: str = "") -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    return f'<table class="{kind}"><tr>{head}</tr>\n' + "\n".join(lines) + "\n</table>"


def _rows(rows: Iterable[Row]) -> str:
    def line(row: Row) -> str:
        own = ' class="own"' if row.candidate.startswith("vppaio") else ""
        cells = [_text(cell) for cell in tables.cells(row)]
        if row.rate is None:
            place = "".join(f"<td>{cell}</td>" for cell in cells[:3])
            return f'<tr{own}>{place}<td class="why" colspan="7">{cells[3]}</td></tr>'
        return f"<tr{own}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

    return _table(tables.HEADER, map(line, rows))


def _goals(rows: Sequence[Row]) -> str:
    """The goals that this run says something about."""
    verdicts = [verdict for verdict in goals.judge(rows) if "not measured" not in verdict.why]
    if not verdicts:
        return ""

    def line(verdict: goals.Verdict) -> str:
        *cells, word = map(_text, tables.verdict_cells(verdict))
        kind = "" if verdict.held else ' class="missed"'
        return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}<td{kind}>{word}</td></tr>"

    return f"<h2>Goals</h2>{_table(tables.GOALS_HEADER, map(line, verdicts), 'goals')}"
