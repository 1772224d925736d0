"""Draw a Grafana dashboard as SVG, with the series that Prometheus returned for each panel.

Uses the dashboard's layout, titles, units, thresholds and legends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

_COLUMN, _ROW, _GAP = 50, 26, 6
_COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d")
_NAMED: Final = {"green": "#299c46", "yellow": "#c4a000", "red": "#c4162a", "blue": "#1f60c4"}
_KILO, _MINUTE_S, _HOUR_S, _DAY_S = 1000.0, 60.0, 3600.0, 86_400.0
_LEGEND_MOST = 6

Series = tuple[str, list[tuple[float, float]]]


def drawn(board: Mapping[str, Any], answers: Mapping[int, list[Series]], *, began_s: float, ended_s: float) -> str:
    """The SVG. `answers` has the series of each panel by its id, as (Unix seconds, value)."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * _COLUMN, bottom * _ROW + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#111217"/>',
        f'<text x="10" y="22" fill="#fff" font-size="16">{escape(board["title"])}</text>',
    ]
    kinds: Mapping[str, Callable[..., list[str]]] = {"stat": _stat, "timeseries": _lines, "state-timeline": _states}
    for panel in board["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * _COLUMN + _GAP / 2, place["y"] * _ROW + 34
        w, h = place["w"] * _COLUMN - _GAP, place["h"] * _ROW - _GAP
        if panel["type"] == "row":
            parts.append(
                f'<text x="{x + 6}" y="{y + 16}" fill="#ccccdc" font-size="13">{escape(panel["title"])}</text>'
            )
            continue
        parts.append(
            f'<g transform="translate({x:.0f},{y:.0f})"><rect width="{w}" height="{h}" fill="#181b1f" rx="2"/>'
        )
        parts += kinds[panel["type"]](panel, answers[panel["id"]], w, h, (began_s, ended_s))
        parts.append(f'<text x="8" y="16" fill="#ccccdc">{escape(panel["title"])}</text></g>')
    return "\n".join([*parts, "</svg>", ""])


def shown(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "no data"
    match unit:
        case "s":
            for size_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1.0, "s")):
                if abs(value) >= size_s:
                    return f"{value / size_s:.3g} {name}"
            return f"{value * _KILO:.3g} ms"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "bytes":
            return f"{value / 1e6:.3g} MB"
        case _:
            suffix = "/s" if unit in {"reqps", "ops"} else ""
            return f"{value / _KILO:.3g}k{suffix}" if abs(value) >= _KILO else f"{value:.3g}{suffix}"


def _colour(panel: Mapping[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _NAMED[reached[-1]]


def _stat(panel: Mapping[str, Any], series: Sequence[Series], w: float, h: float, _: object) -> list[str]:
    value = series[0][1][-1][1] if series and series[0][1] else math.nan
    defaults = panel["fieldConfig"]["defaults"]
    texts = {
        key: option["text"] for mapping in defaults.get("mappings", []) for key, option in mapping["options"].items()
    }
    text = texts.get(f"{value:g}", shown(value, defaults["unit"]))
    colour = "#3d3d45" if not math.isfinite(value) else _colour(panel, value)
    return [
        f'<rect width="{w}" height="{h}" fill="{colour}" rx="2"/>',
        f'<text x="{w / 2}" y="{h / 2 + 16}" fill="#fff" font-size="26" text-anchor="middle">{escape(text)}</text>',
    ]


def _lines(
    panel: Mapping[str, Any], series: Sequence[Series], w: float, h: float, span: tuple[float, float]
) -> list[str]:
    left, top, bottom, right = 52.0, 26.0, 38.0, 10.0
    unit = panel["fieldConfig"]["defaults"]["unit"]
    highest = max((value for _, points in series for _, value in points if math.isfinite(value)), default=0.0)
    highest = _rounded_up(highest) or 1.0

    def x(at_s: float) -> float:
        return left + (at_s - span[0]) / (span[1] - span[0]) * (w - left - right)

    def y(value: float) -> float:
        return h - bottom - value / highest * (h - top - bottom)

    parts = []
    for part in (0.0, 0.5, 1.0):
        at = y(highest * part)
        parts.append(f'<path d="M{left} {at:.1f}H{w - right}" stroke="#2c3035"/>')
        label = shown(highest * part, unit) if part else "0"
        parts.append(
            f'<text x="{left - 5}" y="{at + 4:.1f}" fill="#8e8e99" text-anchor="end" font-size="10">{label}</text>'
        )
    for number, (_, points) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path, before_s = [], -math.inf
        step_s = (span[1] - span[0]) / 100
        for at_s, value in points:
            if not math.isfinite(value):
                continue
            path.append(f"{'L' if at_s - before_s < 3 * step_s else 'M'}{x(at_s):.0f} {y(value):.1f}")
            before_s = at_s
        if path:
            parts.append(f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    parts += _legend(series, left, w, h)
    if not series:
        parts.append(f'<text x="{w / 2}" y="{h / 2}" fill="#8e8e99" text-anchor="middle">no data</text>')
    return parts


def _legend(series: Sequence[Series], left: float, w: float, h: float) -> list[str]:
    parts = []
    at = left
    for number, (name, _) in enumerate(series[:_LEGEND_MOST]):
        if at + 12 + 5.4 * len(name) > w:
            break
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{at:.0f}" y="{h - 17}" width="9" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{at + 12:.0f}" y="{h - 12}" fill="#ccccdc" font-size="10">{escape(name)}</text>')
        at += 24 + 5.4 * len(name)
    return parts


def _states(
    panel: Mapping[str, Any], series: Sequence[Series], w: float, h: float, span: tuple[float, float]
) -> list[str]:
    left, top = 90.0, 26.0
    tall = (h - top - 10) / max(1, len(series))
    parts = []
    for number, (name, points) in enumerate(series):
        y = top + number * tall
        parts.append(
            f'<text x="{left - 6}" y="{y + tall / 2 + 4:.1f}" fill="#ccccdc" text-anchor="end">{escape(name)}</text>'
        )
        step = (span[1] - span[0]) / 100
        run: list[tuple[float, float, float]] = []
        for at_s, value in points:
            if run and run[-1][2] == value and at_s - run[-1][1] < 3 * step:
                run[-1] = (run[-1][0], at_s, value)
            else:
                run.append((at_s, at_s + step, value))
        for from_s, until_s, value in run:
            x = left + (from_s - span[0]) / (span[1] - span[0]) * (w - left - 10)
            long = (until_s - from_s) / (span[1] - span[0]) * (w - left - 10)
            size = f'width="{long:.1f}" height="{tall - 4:.1f}"'
            parts.append(f'<rect x="{x:.1f}" y="{y + 2:.1f}" {size} fill="{_colour(panel, value)}"/>')
    return parts


def _rounded_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 0.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= value * 0.999)
