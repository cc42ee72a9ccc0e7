"""Card: a run as one self-contained page, to read, print, or attach to a change."""

from pathlib import Path

from slimface.errors import MissingError, UsageError
from slimface.files import write_text
from slimface.report import pictures
from slimface.report.markup import Html
from slimface.report.run import read_run
from slimface.report.story import Story, tell


def write_card(run_folder: Path, out: Path | None = None) -> Path:
    """Write the card of a run and return its path.

    The page needs no network and no script: styles, figures and pictures are inside, and its
    content policy forbids everything else. It shows what the records hold and says what they
    don't. Text from the records is escaped.

    Args:
        run_folder: Folder with ``records.jsonl``, as ``slimface run`` writes it.
        out: The file to write; ``card.html`` in the run folder if None.

    Raises:
        MissingError: There are no records, or jinja2 is not installed.
        DataError: A record is broken.
        UsageError: ``out`` cannot be written.
    """
    path = run_folder / "card.html" if out is None else out
    story = tell(read_run(run_folder))
    page = render(story)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}.\n"
            "Make room or choose another place with --out FILE."
        ) from error
    return path


def render(story: Story) -> str:
    """Return the page that tells ``story``.

    Raises:
        MissingError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingError(
            "A card needs the package jinja2, which is not installed.\n"
            "Install it with: pip install 'slimface[report]'"
        ) from error
    environment = Environment(
        loader=PackageLoader("slimface.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html.j2")
    style = Html(environment.get_template("card.css").render())
    return template.render(story=story, style=style, legend=pictures.legend())
