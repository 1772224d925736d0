"""Makes demo.svg, the picture in the README: `python -m tests.demo.picture`."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

from rich.console import Console

from predictu_dispatch import demo
from predictu_dispatch.demo.runner import Options, run_demo
from predictu_dispatch.demo.screen import Screen

_CHAR_WIDTH = 12.2
"""Width of a character in rich's SVG."""


def main() -> int:
    """Run the demo on a recording console of 90 columns, and write the picture."""
    console = Console(record=True, width=90, highlight=False)
    console.print("$ predictu-dispatch demo --seed 7")
    code = run_demo(Options(bets=300, seed=7, keep=False, as_json=False), Screen(sys.stdout, console))
    picture = console.export_svg(title="predictu-dispatch demo")
    # A viewer must not load fonts from the internet, and must not collapse spaces.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    picture = picture.replace("<svg ", '<svg xml:space="preserve" ', 1)
    picture = re.sub(r'textLength="[\d.]+"([^>]*>)([^<]*&#160;in&#160;)/[^<]*', _without_path, picture)
    Path(demo.__file__).with_name("demo.svg").write_text(picture, encoding="utf-8")
    return code


def _without_path(match: re.Match[str]) -> str:
    """Replace the path of this run's temporary folder; the length is that of the new text."""
    text = f"{match[2]}a&#160;temporary&#160;folder"
    return f'textLength="{len(html.unescape(text)) * _CHAR_WIDTH:.1f}"{match[1]}{text}'


if __name__ == "__main__":
    sys.exit(main())
