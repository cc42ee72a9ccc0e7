"""Cascade: three files of any format and the rules, in one folder that opens as one detector."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimface.core.spec import CASCADE_NETS
from slimface.deploy.runtimes.cascade import SPEC_FILE
from slimface.errors import UsageError
from slimface.export.form import Form
from slimface.files import write_text
from slimface.model.cascade import net_of
from slimface.model.mtcnn import MTCNN

TRACED_PX = 48
"""Side of the picture that the first net is traced with, where it takes any."""

TILE_PX = 161
"""Side of the first net's input where a file takes one size: pyramids are cut into such tiles. Odd,
see ``slimface.deploy.runtimes.tiles``."""


def write_cascade(
    cascade: MTCNN, folder: Path, form: Form, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write each net of a cascade into ``folder``, and its spec.

    Raises:
        UsageError: The nets were to decode: their boxes are of crops, and those of the cascade are
            made outside of any net.
        MissingError, ParityError, CheckpointError: As ``form.write``.
    """
    if form.decode:
        raise UsageError(
            f"{cascade.spec.name} is a cascade: its boxes are decoded between its nets, not in "
            "them.\nLeave --decode out."
        )
    for name in CASCADE_NETS:
        net = copy.deepcopy(net_of(cascade, name, where=cascade.spec.name))
        net.spec = cascade.spec.of_net(name)
        side = net.side_px if net.input_size else TRACED_PX if form.dynamic else TILE_PX
        sized = form.model_copy(update={"height": side, "width": side})
        sized.write(net, folder / f"{name}{form.suffix}", provenance=provenance)
    write_text(folder / SPEC_FILE, cascade.spec.model_dump_json(indent=1) + "\n")
