"""Draw the results of `make bench` with matplotlib, from a JSON file to an SVG.

The JSON: `machine`, a line of text; `rates`, each with name, median, low, high a second;
`latencies`, each with name, p50 and p99 in ms.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]
import matplotlib.pyplot as plt  # type: ignore[import-not-found]

_INK, _QUIET, _OURS, _OTHER, _TAIL = "#222222", "#777777", "#1f6f8b", "#b8c4c9", "#dfe6e9"
_BAR_INCHES = 0.42
_BESIDE: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "color": _INK}


def _is_ours(name: str) -> bool:
    return name.startswith("ours")


def _tidy(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x", which="major", color="#eeeeee")


def _draw_rates(axes: Any, rates: list[dict[str, Any]]) -> None:
    """Draw bars on a logarithmic scale, with whiskers from the lowest to the highest round."""
    medians = [rate["median"] for rate in rates]
    whiskers = [[rate["median"] - rate["low"] for rate in rates], [rate["high"] - rate["median"] for rate in rates]]
    colours = [_OURS if _is_ours(rate["name"]) else _OTHER for rate in rates]
    axes.barh(range(len(rates)), medians, xerr=whiskers, color=colours, height=0.62, ecolor=_INK, capsize=3)
    for number, rate in enumerate(rates):
        axes.annotate(f"{rate['median']:,.0f}", (rate["high"], number), **_BESIDE)
    axes.set_xscale("log")
    axes.set_xlim(min(rate["low"] for rate in rates) / 2, max(rate["high"] for rate in rates) * 2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title("requests a second, logarithmic; whiskers: slowest and fastest round", loc="left")
    _tidy(axes, [rate["name"] for rate in rates])


def _draw_latencies(axes: Any, latencies: list[dict[str, Any]]) -> None:
    """Draw the median as a bar, and the p99 as a paler bar behind it."""
    numbers = range(len(latencies))
    axes.barh(numbers, [one["p99"] for one in latencies], color=_TAIL, height=0.62)
    colours = [_OURS if _is_ours(one["name"]) else _OTHER for one in latencies]
    axes.barh(numbers, [one["p50"] for one in latencies], color=colours, height=0.62)
    for number, one in zip(numbers, latencies, strict=True):
        axes.annotate(f"{one['p50']:.1f} / {one['p99']:.1f}", (one["p99"], number), **_BESIDE)
    axes.set_xlim(0, max(one["p99"] for one in latencies) * 1.18)
    axes.set_title("from commit to the operator's first byte, ms at 50 a second: median / p99", loc="left")
    _tidy(axes, [one["name"] for one in latencies])


def draw(found: dict[str, Any], target: Path) -> None:
    """Draw the picture to `target`; its suffix selects the format."""
    mpl.rcParams |= {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _QUIET,
        "xtick.color": _QUIET,
        "ytick.color": _INK,
        # Deterministic ids, so that the file changes only if its numbers change.
        "svg.hashsalt": "predictu-bench",
        "svg.fonttype": "path",
    }
    panels = [(found[name], _PANELS[name]) for name in _PANELS if found.get(name)]
    heights = [len(entries) * _BAR_INCHES + 0.9 for entries, _ in panels]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(9, sum(heights) + 0.4),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for (entries, draw_panel), one in zip(panels, axes[:, 0], strict=True):
        draw_panel(one, entries)
    figure.supxlabel(found["machine"], fontsize=7, color=_QUIET, wrap=True)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


_PANELS = {"rates": _draw_rates, "latencies": _draw_latencies}

if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
