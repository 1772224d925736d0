"""`python -m predictu_dispatch.verifier FILE`; of a copy, `python FOLDER FILE`."""

import sys

if __package__:
    from .cli import main
else:
    # Python was given the folder itself, so it does not know that it is a package.
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    _folder = Path(__file__).resolve().parent
    _spec = spec_from_file_location("verifier", _folder / "__init__.py", submodule_search_locations=[str(_folder)])
    assert _spec is not None and _spec.loader is not None  # noqa: S101, PT018 - the file is there
    sys.modules["verifier"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["verifier"])
    from verifier.cli import main  # type: ignore[import-not-found, no-redef]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
