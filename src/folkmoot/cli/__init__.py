"""The command line: `folkmoot serve`, `check`, `user`, `model`, `predict` and `demo`."""

from __future__ import annotations

import sys

from folkmoot.errors import FolkmootError, Misconfigured


def main() -> None:
    """Run a command; what is wrong with its arguments or settings is one line, and exit code 2."""
    try:
        from folkmoot.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(_explain(f"the command line needs {error.name}: pip install 'folkmoot[cli]'", code=2))
    try:
        sys.exit(run(sys.argv[1:]))
    except Misconfigured as error:
        sys.exit(_explain(error.message, code=2))
    except FolkmootError as error:
        sys.exit(_explain(error.message, code=1))
    except KeyboardInterrupt:
        sys.exit(_explain("stopped", code=130))


def _explain(sentence: str, *, code: int) -> int:
    print(f"folkmoot: {' '.join(sentence.split())}", file=sys.stderr)  # noqa: T201 - the one place that says it
    return code
