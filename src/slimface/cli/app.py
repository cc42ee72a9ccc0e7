"""The command line: ``slimface VERB``. Parse, call one function, print.

Each verb is a function in its own module; the modules import what is heavy inside it, so that help
is instant and a machine without torch can detect.
"""

import errno
import logging
import sys
import warnings
from typing import Annotated

import typer
from rich.logging import RichHandler

import slimface
from slimface.cli.benchmark import benchmark
from slimface.cli.classify import classify
from slimface.cli.compare import compare
from slimface.cli.console import diary
from slimface.cli.data import app as data
from slimface.cli.demo import app as demo
from slimface.cli.detect import detect
from slimface.cli.distill import distill
from slimface.cli.doctor import doctor
from slimface.cli.evaluate import evaluate
from slimface.cli.export import export
from slimface.cli.parity import parity
from slimface.cli.profile import profile
from slimface.cli.prune import prune
from slimface.cli.quantize import quantize
from slimface.cli.report import report
from slimface.cli.run import run_command
from slimface.cli.search import search
from slimface.cli.serve import serve
from slimface.cli.shrink import shrink
from slimface.cli.train import train
from slimface.cli.verify import verify
from slimface.cli.zoo import zoo
from slimface.errors import SlimfaceError

app = typer.Typer(
    name="slimface",
    help="From a trained face detector to the smallest, fastest file a device can run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"slimface {slimface.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a trained face detector to the smallest, fastest file a device can run."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = RichHandler(console=diary, show_path=False, show_level=False, markup=False)
    logger = logging.getLogger("slimface")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
    if not verbose:
        warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|torch_pruning)\b.*")


app.command("zoo")(zoo)
app.command("detect")(detect)
app.command("classify")(classify)
app.command("doctor")(doctor)
app.command("train")(train)
app.command("distill")(distill)
app.command("evaluate")(evaluate)
app.command("compare")(compare)
app.command("prune")(prune)
app.command("shrink")(shrink)
app.command("search")(search)
app.command("quantize")(quantize)
app.command("profile")(profile)
app.command("export")(export)
app.command("parity")(parity)
app.command("verify")(verify)
app.command("benchmark")(benchmark)
app.command("serve")(serve)
app.command("run")(run_command)
app.command("report")(report)
app.add_typer(data, name="data")
app.add_typer(demo, name="demo")


def main() -> None:
    """Run the command line; the only place where errors become messages and exit codes."""
    try:
        # Typer turns Ctrl-C and typer.Exit into a number that it returns.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(code, int) and code:
            sys.exit(code)
    except SlimfaceError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(
            "Stopped. What was finished is kept; the same command goes on from there.", _INTERRUPTED
        )
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPIPE):
            raise
        if error.errno == errno.EPIPE:
            sys.exit(0)
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}.\nMake room or choose another folder.", 1)
    except Exception as error:
        # Usage errors of the parser know their exit code and how to show themselves.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(error.exit_code)


def _fail(message: str, code: int) -> None:
    first, _, rest = message.partition("\n")
    diary.print(f"[bold red]Error:[/] {_plain(first)}", soft_wrap=True)
    if rest:
        diary.print(_plain(rest), soft_wrap=True)
    sys.exit(code)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
