"""``slimface demo data``: drawn scenes in the layout of WIDER FACE."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from slimface.cli.console import console, print_json, print_table, track


def demo_data(
    out: Annotated[Path, typer.Argument(help="Folder to draw into.", show_default=False)],
    count: Annotated[int, typer.Option(min=1, help="Scenes to learn from.")] = 1000,
    val: Annotated[int, typer.Option(min=1, help="Scenes to measure on.")] = 100,
    size: Annotated[int, typer.Option(min=64, help="Height and width in pixels.")] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds draw equal scenes.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Draw scenes with known faces; every verb that takes --data reads the folder."""
    from slimface.data.drawn import Drawn, write_drawn
    from slimface.errors import UsageError

    if (out / "wider_face_split").exists():
        raise UsageError(
            f"{out} already holds annotations, and they are not overwritten.\n"
            "Name another folder, or remove this one first."
        )
    rows: list[dict[str, str | int]] = []
    # Two seeds a set, so that no scene to measure on is one to learn from.
    for split, scenes, stream in (("train", count, 2 * seed), ("val", val, 2 * seed + 1)):
        spec = Drawn(count=scenes, height_px=size, width_px=size, seed=stream)
        pictures = write_drawn(spec, out, split, track=partial(track, description=split))
        rows.append(
            {
                "split": split,
                "pictures": len(pictures),
                "faces": pictures.face_count,
                "fingerprint": pictures.fingerprint(),
            }
        )
    if json:
        print_json({"folder": str(out), "splits": rows})
        return
    print_table(
        f"Drawn scenes in {out}",
        ("split", "pictures", "faces"),
        [(row["split"], row["pictures"], row["faces"]) for row in rows],
    )
    console.print(f"Train on them:  slimface train --data {out}", soft_wrap=True)
