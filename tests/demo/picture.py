"""Makes demo.svg, the picture in the README: `python -m tests.demo.picture`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console

from predictu_dispatch import demo
from predictu_dispatch.demo.runner import Options, run_demo
from predictu_dispatch.demo.screen import Screen


def main() -> int:
    """Run the demo on a recording console of 90 columns, and write the picture."""
    console = Console(record=True, width=90, highlight=False)
    console.print("$ predictu-dispatch demo --seed 7")
    code = run_demo(Options(bets=300, seed=7, keep=False, as_json=False), Screen(sys.stdout, console))
    picture = console.export_svg(title="predictu-dispatch demo")
    # A viewer must not load fonts from the internet, and must not collapse spaces.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    picture = picture.replace("<svg ", '<svg xml:space="preserve" ', 1)
    Path(demo.__file__).with_name("demo.svg").write_text(picture, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
