"""``slimface verify``: is a bundle whole, and does it find the same faces here?"""

from pathlib import Path
from typing import Annotated

import typer

from slimface.cli.console import print_json, print_table
from slimface.errors import ParityError


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder made by export --format bundle.")],
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with.  [default: the runtime's]")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Fail if a runtime is not installed here.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Check a bundle offline: digests, spec, and the golden faces in every runtime at hand."""
    from slimface.export.verify import verify as checks_of

    checks = list(checks_of(bundle, threads=threads))
    if json:
        print_json({"bundle": str(bundle), "checks": [check.as_json() for check in checks]})
    else:
        rows = [[check.what, check.verdict, check.detail] for check in checks]
        print_table(str(bundle), ["what", "verdict", ""], rows)
    failed = [check for check in checks if check.verdict == "failed"]
    left_out = [check for check in checks if check.verdict == "not run"]
    ran = any(check.what.endswith(": faces") and check.verdict == "passed" for check in checks)
    if failed:
        raise ParityError(
            f"{bundle}: {len(failed)} of {len(checks)} checks failed, first {failed[0].what}: "
            f"{failed[0].detail}.\nCopy the bundle again, or export it anew."
        )
    if not ran or (every and left_out):
        what = left_out[0] if left_out else checks[-1]
        raise ParityError(
            f"{bundle}: no proof without {what.what}: {what.detail}.\n"
            "Install what is missing, then verify again."
        )
