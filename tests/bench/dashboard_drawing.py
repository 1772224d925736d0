"""Draw a Grafana dashboard as SVG, with the series that Prometheus returned for each panel.

Uses the dashboard's layout, titles, units, thresholds, colours and legends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final, NamedTuple

_COLUMN, _ROW, _GAP = 50, 26, 6
_TITLE_PX, _AXIS_PX, _LEGEND_PX, _CHAR_PX = 26.0, 16.0, 14.0, 6.2
_LEFT_PX, _RIGHT_PX = 56.0, 12.0
_PALETTE: Final = (
    *("#5794f2", "#b877d9", "#ffb357", "#c0d8ff", "#8f3bb8", "#ffee52", "#1f60c4", "#deb6f2", "#e0b400", "#8ab8ff"),
    *("#a352cc", "#ffcb7d", "#3274d9", "#fff899", "#ca95e5"),
)
"""Without green and red, which mean good and bad."""
_LINES: Final = {
    "green": "#73bf69",
    "blue": "#5794f2",
    "light-blue": "#8ab8ff",
    "light-red": "#ff7383",
    "red": "#f2495c",
    "semi-dark-red": "#e02f44",
    "dark-red": "#c4162a",
    "light-orange": "#ffb357",
    "orange": "#ff9830",
    "semi-dark-orange": "#ff780a",
    "dark-orange": "#fa6400",
    "light-yellow": "#ffee52",
    "yellow": "#fade2a",
    "dark-yellow": "#e0b400",
    "light-purple": "#ca95e5",
    "purple": "#b877d9",
    "semi-dark-purple": "#a352cc",
    "dark-purple": "#8f3bb8",
}
"""The colours of Grafana's dark theme by their names."""
_AREAS: Final = {"green": "#299c46", "yellow": "#c4a000", "orange": "#e0752d", "red": "#c4162a", "blue": "#1f60c4"}
_KILO, _MINUTE_S, _HOUR_S, _DAY_S = 1000.0, 60.0, 3600.0, 86_400.0
_TICKS_S: Final = (15, 30, 60, 120, 300, 600, 1800, 3600)
_TICK_PX = 80.0

Series = tuple[str, list[tuple[float, float]]]
Colours = Mapping[str, str]


class Frame(NamedTuple):
    """The place of a panel's drawing and the time that it spans."""

    w: float
    h: float
    left: float
    bottom: float
    began_s: float
    ended_s: float

    def x(self, at_s: float) -> float:
        part = (at_s - self.began_s) / (self.ended_s - self.began_s)
        return self.left + part * (self.w - self.left - _RIGHT_PX)

    @property
    def step_s(self) -> float:
        return (self.ended_s - self.began_s) / 100


class Legend(NamedTuple):
    """A legend below a drawing, in as many rows as it needs."""

    parts: list[str]
    height: float


class Panel(NamedTuple):
    """A panel with what it shows."""

    panel: Mapping[str, Any]
    series: Sequence[Series]
    w: float
    h: float
    began_s: float
    ended_s: float
    colours: Colours

    def frame(self, left: float, legend: Legend) -> Frame:
        return Frame(
            w=self.w,
            h=self.h,
            left=left,
            bottom=legend.height + _AXIS_PX + 4,
            began_s=self.began_s,
            ended_s=self.ended_s,
        )


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
    kinds: Mapping[str, Callable[[Panel], list[str]]] = {"stat": _stat, "timeseries": _lines, "state-timeline": _states}
    by_name = _palette(name for series in answers.values() for name, _ in series)
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
        colours = {**by_name, **_fixed(panel)}
        parts += kinds[panel["type"]](Panel(panel, answers[panel["id"]], w, h, began_s, ended_s, colours))
        colour = "#fff" if panel["type"] == "stat" else "#ccccdc"
        parts.append(f'<text x="8" y="16" fill="{colour}">{escape(panel["title"])}</text></g>')
    return "\n".join([*parts, "</svg>", ""])


def shown(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "no data"
    match unit:
        case "s":
            for size_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1.0, "s")):
                if abs(value) >= size_s:
                    return f"{value / size_s:.3g} {name}"
            return f"{value * _KILO:.3g} ms" if value else "0 s"
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "bytes":
            return f"{value / 1e6:.3g} MB"
        case _:
            suffix = "/s" if unit in {"reqps", "ops"} else ""
            for size, name in ((_KILO**3, "G"), (_KILO**2, "M"), (_KILO, "k")):
                if abs(value) >= size:
                    return f"{value / size:.3g}{name}{suffix}"
            return f"{value:.3g}{suffix}"


def _palette(names: Iterable[str]) -> Colours:
    """Return one colour for each name on the whole board, as palette-classic-by-name does."""
    return {name: _PALETTE[number % len(_PALETTE)] for number, name in enumerate(sorted(set(names)))}


def _fixed(panel: Mapping[str, Any]) -> Colours:
    return {
        override["matcher"]["options"]: _LINES[part["value"]["fixedColor"]]
        for override in panel["fieldConfig"]["overrides"]
        for part in override["properties"]
    }


def _threshold(panel: Mapping[str, Any], value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _AREAS[reached[-1]]


def _texts(panel: Mapping[str, Any]) -> dict[str, str]:
    mappings = panel["fieldConfig"]["defaults"].get("mappings", [])
    return {key: option["text"] for mapping in mappings for key, option in mapping["options"].items()}


def _stat(one: Panel) -> list[str]:
    panel, series, w, h = one.panel, one.series, one.w, one.h
    value = series[0][1][-1][1] if series and series[0][1] else math.nan
    text = _texts(panel).get(f"{value:g}", shown(value, panel["fieldConfig"]["defaults"]["unit"]))
    colour = _threshold(panel, value) if math.isfinite(value) else "#3d3d45"
    return [
        f'<rect width="{w}" height="{h}" fill="{colour}" rx="2"/>',
        f'<text x="{w / 2}" y="{h / 2 + 16}" fill="#fff" font-size="26" text-anchor="middle">{escape(text)}</text>',
    ]


def _lines(one: Panel) -> list[str]:
    series, w, h, colours = one.series, one.w, one.h, one.colours
    legend = _legend([(name, colours[name]) for name, _ in series], w, h)
    frame = one.frame(_LEFT_PX, legend)
    defaults = one.panel["fieldConfig"]["defaults"]
    values = [value for _, points in series for _, value in points if math.isfinite(value)]
    highest = _rounded_up(max(values, default=0.0), defaults["unit"]) or (0.0 if min(values, default=0.0) < 0 else 1.0)
    lowest = -_rounded_up(-min(values, default=0.0))

    def y(value: float) -> float:
        return h - frame.bottom - (value - lowest) / (highest - lowest) * (h - _TITLE_PX - frame.bottom)

    parts = _time_axis(frame)
    for part in (0.0, 0.5, 1.0):
        value = lowest + (highest - lowest) * part
        parts.append(f'<path d="M{frame.left} {y(value):.1f}H{w - _RIGHT_PX}" stroke="#2c3035"/>')
        parts.append(_axis_text(frame.left - 5, y(value) + 4, shown(value, defaults["unit"]) if value else "0", "end"))
    limits = [step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None]
    for limit in limits:
        if "thresholdsStyle" in defaults["custom"] and limit <= highest:
            line = f'd="M{frame.left} {y(limit):.1f}H{w - _RIGHT_PX}" stroke="#f2495c" stroke-dasharray="4 3"'
            parts.append(f"<path {line}/>")
    for name, points in series:
        path, before_s = [], -math.inf
        for at_s, value in points:
            if math.isfinite(value):
                path.append(f"{'L' if at_s - before_s < 3 * frame.step_s else 'M'}{frame.x(at_s):.0f} {y(value):.1f}")
                before_s = at_s
        if path:
            parts.append(f'<path d="{"".join(path)}" fill="none" stroke="{colours[name]}" stroke-width="1.3"/>')
    if not values:
        parts.append(f'<text x="{w / 2}" y="{h / 2}" fill="#8e8e99" text-anchor="middle">no data</text>')
    return [*parts, *legend.parts]


def _legend(entries: Sequence[tuple[str, str]], w: float, h: float) -> Legend:
    rows: list[list[tuple[float, str, str]]] = []
    at = w
    for name, colour in dict(entries).items():
        size = 26 + _CHAR_PX * len(name)
        if at + size > w - 4:
            rows.append([])
            at = 10.0
        rows[-1].append((at, name, colour))
        at += size
    parts = []
    for number, row in enumerate(reversed(rows)):
        y = h - 7 - number * _LEGEND_PX
        for x, name, colour in row:
            parts.append(f'<rect x="{x:.0f}" y="{y - 5:.0f}" width="9" height="3" fill="{colour}"/>')
            parts.append(
                f'<text x="{x + 13:.0f}" y="{y:.0f}" fill="#ccccdc" font-size="10" class="legend">{escape(name)}</text>'
            )
    return Legend(parts, len(rows) * _LEGEND_PX + 4)


def _time_axis(frame: Frame) -> list[str]:
    """Return the ticks with their UTC times."""
    span_s = frame.ended_s - frame.began_s
    step_s = next((step_s for step_s in _TICKS_S if span_s / step_s * _TICK_PX <= frame.w - frame.left), _TICKS_S[-1])
    parts = []
    at_s = math.ceil(frame.began_s / step_s) * step_s
    while at_s <= frame.ended_s:
        x, text = frame.x(at_s), f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"
        parts.append(f'<path d="M{x:.1f} {_TITLE_PX}V{frame.h - frame.bottom:.1f}" stroke="#24282d"/>')
        parts.append(_axis_text(min(max(x, frame.left), frame.w - 24), frame.h - frame.bottom + 13, text, "middle"))
        at_s += step_s
    return parts


def _axis_text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#8e8e99" text-anchor="{anchor}" font-size="10">{escape(text)}</text>'


def _states(one: Panel) -> list[str]:
    panel, series, w, h = one.panel, one.series, one.w, one.h
    meanings = [(text, _threshold(panel, float(key))) for key, text in _texts(panel).items()]
    legend = _legend(meanings, w, h)
    left = 16 + 6.2 * max((len(name) for name, _ in series), default=0)
    frame = one.frame(left, legend)
    tall = (h - _TITLE_PX - frame.bottom) / max(1, len({name for name, _ in series}))
    parts = _time_axis(frame)
    rows = {name: number for number, name in enumerate(sorted({name for name, _ in series}))}
    for name, number in rows.items():
        y = _TITLE_PX + number * tall + tall / 2 + 4
        parts.append(f'<text x="{left - 6:.0f}" y="{y:.1f}" fill="#ccccdc" text-anchor="end">{escape(name)}</text>')
    for name, points in series:
        y, run = _TITLE_PX + rows[name] * tall, list[tuple[float, float, float]]()
        for at_s, value in points:
            if run and run[-1][2] == value and at_s - run[-1][1] < 3 * frame.step_s:
                run[-1] = (run[-1][0], at_s + frame.step_s, value)
            else:
                run.append((at_s, at_s + frame.step_s, value))
        for from_s, until_s, value in run:
            x = frame.x(from_s)
            size = f'width="{frame.x(min(until_s, frame.ended_s)) - x:.1f}" height="{tall - 4:.1f}"'
            parts.append(f'<rect x="{x:.1f}" y="{y + 2:.1f}" {size} fill="{_threshold(panel, value)}"/>')
    return [*parts, *legend.parts]


def _rounded_up(value: float, unit: str = "") -> float:
    """The next 1, 2 or 5 times a power of ten, or a whole number of minutes, hours or days."""
    if value <= 0:
        return 0.0
    if unit == "s" and value > _MINUTE_S / 2:
        size = next(size_s for size_s in (_DAY_S, _HOUR_S, _MINUTE_S, 0.0) if value > size_s / 2)
        return 2 * math.ceil(value / size / 2) * size if value > size else size
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= value * 0.999)
