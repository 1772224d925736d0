"""Write the table of deploy/metrics.md from the metrics of a daemon.

.venv/bin/python -m tests.support.metrics_document
"""

from pathlib import Path

from tests.support.telemetry import MetricFamily, metric_families

DOCUMENT = Path(__file__).parents[2] / "deploy" / "metrics.md"
HEADING = "## All metrics\n\n"
PREFIX = "predictu_dispatch_"
UNITS = {
    "_timestamp_seconds": "Unix time",
    "_seconds": "seconds",
    "_subunits": "smallest unit",
    "_bytes": "bytes",
    "_ratio": "0 to 1",
}


def unit_of(name: str, family: MetricFamily) -> str:
    stem = name.removesuffix("_total")
    found = next((unit for suffix, unit in UNITS.items() if stem.endswith(suffix)), None)
    return found or ("0 or 1" if family.text.startswith(("1 ", "Always 1")) else "number")


def table() -> str:
    lines = ["| name | type | labels | unit | meaning |", "|---|---|---|---|---|"]
    for name, family in metric_families().items():
        if name.startswith(PREFIX):
            labels = ", ".join(f"`{label}`" for label in sorted(family.labels))
            cells = f"`{name.removeprefix(PREFIX)}`", family.kind, labels, unit_of(name, family), family.text
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def expected() -> str:
    """Return the document with the table as it must be."""
    return DOCUMENT.read_text(encoding="utf-8").partition(HEADING)[0] + HEADING + table()


if __name__ == "__main__":
    DOCUMENT.write_text(expected(), encoding="utf-8")
