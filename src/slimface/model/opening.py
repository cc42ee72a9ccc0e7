"""Opening: the module a name of the zoo or a checkpoint stands for, with its weights."""

from pathlib import Path

from slimface.errors import UsageError
from slimface.model import zoo
from slimface.model.checkpoint import load_checkpoint
from slimface.model.network import Network

CHECKPOINT = ".safetensors"


def open_network(source: str | Path) -> Network:
    """Return a model of any task that torch can run, in evaluation mode.

    Args:
        source: A name of the zoo, or a checkpoint of slimface.

    Raises:
        UsageError: It is neither.
        MissingError, CheckpointError: As for each of them.
    """
    path = Path(source)
    if path.suffix == CHECKPOINT:
        return load_checkpoint(path).network
    if path.suffix or path.parent != Path():
        raise UsageError(
            f"{path} is neither a name of the zoo nor a checkpoint ({CHECKPOINT}).\n"
            "Exported files cannot be trained with; name the checkpoint they were made from."
        )
    return zoo.load(str(source))
