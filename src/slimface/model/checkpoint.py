"""Checkpoint: a model in one ``.safetensors`` file, and published ``.pth`` files read safely.

The header holds the spec, the provenance and the metrics as JSON, the body the tensors. Layer
widths are those of the tensors, so pruned and unpruned models load alike, without the pruner and
without unpickling anything.
"""

import hashlib
import json
import logging
import os
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

import slimface
from slimface.core.grid import Grid
from slimface.core.spec import CascadeSpec, DetectorSpec, ModelSpec, read_spec
from slimface.core.value import Value
from slimface.errors import CheckpointError, MissingError, RecipeError, UsageError
from slimface.files import beside
from slimface.model.build import ARCHITECTURES, build
from slimface.model.detector import Detector
from slimface.model.network import Network
from slimface.model.widths import resize_

log = logging.getLogger(__name__)

_GARBLED = (
    *(RuntimeError, OSError, EOFError, ValueError, TypeError, AttributeError, LookupError),
    *(ArithmeticError, AssertionError, struct.error),
)
"""What torch's unpickler raises, depending on where in a damaged file it stumbles."""

_WRAPPERS = ("state_dict", "weight", "model")
"""Keys under which published files keep their tensors, beside epochs and the like."""


class Provenance(Value):
    """Where a model comes from."""

    parent: str | None = None
    """Fingerprint of the model it was made from."""

    recipe: str | None = None
    """What was done to the parent, for people: a recipe's name or a command."""

    seed: int | None = None
    versions: Mapping[str, str] = {}
    """Package -> version; filled in when saved."""

    origin: str | None = None
    """Who published the weights it descends from."""

    licence: str | None = None
    """Terms of those weights; they bind what is made from them as well."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds."""

    network: Network
    """In evaluation mode."""

    spec: ModelSpec
    provenance: Provenance
    metrics: tuple[dict[str, Any], ...] = ()
    """Records as JSON objects, each with its own protocol stamp."""

    @property
    def detector(self) -> Detector:
        """The network, which has to be a detector.

        Raises:
            UsageError: It is a model of another task.
        """
        if not isinstance(self.network, Detector):
            raise UsageError(
                f"{self.spec.name} does {self.spec.task}; a detector is needed here.\n"
                "Name a detector, or use a verb for classifiers: train, prune, evaluate, classify."
            )
        return self.network


def fingerprint(network: Network) -> str:
    """Return the SHA-256 of spec and tensors, in hex: equal models have equal fingerprints."""
    return _digest(network, network.spec.fingerprint())


def _digest(network: Network, about: str = "") -> str:
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def set_grid(network: Network, grid: Grid) -> None:
    """Note that the weights of a network, as they are now, have learnt on a grid."""
    network.grid = grid.model_copy(update={"weights": _digest(network)})


def grid_of(network: Network) -> Grid | None:
    """Return the grid that a network has learnt on; None if it has not, or was changed since."""
    grid = network.grid
    return grid if grid is not None and grid.weights == _digest(network) else None


def save(
    network: Network,
    path: Path | str,
    *,
    provenance: Provenance | None = None,
    metrics: Iterable[Mapping[str, Any]] = (),
) -> None:
    """Write a checkpoint; an existing file is replaced in one go, or stays as it was.

    Raises:
        CheckpointError: The file cannot be written (full disk, no such folder, no permission).
    """
    provenance = provenance or Provenance()
    versions = {
        "slimface": slimface.__version__,
        "torch": str(torch.__version__),
        **provenance.versions,
    }
    provenance = provenance.model_copy(update={"versions": versions})
    header = {
        "format": "slimface",
        "spec": network.spec.model_dump_json(),
        "provenance": provenance.model_dump_json(),
        "metrics": json.dumps([dict(record) for record in metrics], allow_nan=False),
    }
    grids = {
        name: grid.model_dump(mode="json")
        for name, one in network.named_modules()
        if isinstance(one, Network) and (grid := grid_of(one)) is not None
    }
    if grids:
        header["grids"] = json.dumps(grids)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    write_whole(Path(path), serialise(tensors, metadata=header))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that nobody ever sees half of it.

    Raises:
        CheckpointError: It cannot be written; nothing is left behind.
    """
    try:
        with beside(path) as part, part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written: {error.strerror or error}.\n"
            f"Nothing was left there. Make room (it needs {len(content):,} bytes) or choose "
            "another folder."
        ) from error


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint that ``save`` has written.

    Raises:
        MissingError: There is no such file.
        CheckpointError: It is damaged, foreign, from a newer slimface, or does not fit together.
    """
    path = Path(path)
    _expect_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file: {error}.\n"
            "Copy or save it again; an interrupted copy leaves such files."
        ) from None
    if "spec" not in header:
        raise CheckpointError(
            f"{path} holds tensors but no spec, so it was not saved by slimface.\n"
            "Save it with slimface.model.checkpoint.save, which writes both."
        )
    try:
        spec = read_spec(header["spec"], where=str(path))
        provenance = Provenance.parse(header.get("provenance", "{}"), where=f"{path}, provenance")
        metrics = tuple(json.loads(header.get("metrics", "[]")))
        grids = {
            name: Grid.parse(grid, where=f"{path}, grid")
            for name, grid in json.loads(header.get("grids", "{}")).items()
        }
    except (RecipeError, json.JSONDecodeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the header is not what slimface writes: {error}\n"
            "The file was changed by another program or a newer slimface; save it again."
        ) from None
    network = restore(spec, tensors, where=str(path))
    for name, module in network.named_modules():
        if isinstance(module, Network):
            module.grid = grids.get(name)
    return Checkpoint(network, spec, provenance, metrics)


@overload
def restore(spec: DetectorSpec, tensors: Mapping[str, Tensor], *, where: str) -> Detector: ...
@overload
def restore(spec: ModelSpec, tensors: Mapping[str, Tensor], *, where: str) -> Network: ...
def restore(spec: ModelSpec, tensors: Mapping[str, Tensor], *, where: str) -> Network:
    """Build a spec's network with these tensors, at the widths they have.

    Args:
        spec: What to build.
        tensors: A complete state dict.
        where: Where the tensors come from, for error messages.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: The architecture is unknown, keys are missing or too many, or the layers
            do not fit each other.
    """
    if spec.architecture.name not in ARCHITECTURES:
        raise CheckpointError(
            f"{where} holds a model of the architecture {spec.architecture.name!r}, which this "
            f"slimface does not know ({', '.join(sorted(ARCHITECTURES))}).\n"
            "Update slimface (pip install -U slimface)."
        )
    try:
        network = build(spec, seed=0)
    except RecipeError as error:
        raise CheckpointError(f"{where}: {error}") from None
    _check_keys(network.state_dict().keys(), tensors.keys(), spec=spec, where=where)
    resize_(network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    own = network.state_dict()
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}; {spec.name} needs "
                f"{tuple(tensor.shape)}, and this tensor has no width that may differ.\n"
                "The weights belong to another variant of the architecture."
            )
    # Into a state of its own: that says of each layer which version of it wrote the tensors, and
    # some (MNASNet's) read nothing without.
    own.update(tensors)
    network.load_state_dict(own, strict=True)
    network.eval()
    check_chain(network, where=where)
    return network


def check_chain(network: Network, *, where: str) -> None:
    """Run the network once on a small input.

    Raises:
        CheckpointError: A layer does not fit the one before it.
    """
    entered = [""]
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: entered.__setitem__(0, name))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    reference = next(network.parameters())
    images = torch.zeros((1, 3, *network.trace_size)).to(reference)
    try:
        with torch.inference_mode():
            # A cascade has no single pass whose predictions could be read.
            run = network.maps if isinstance(network.spec, CascadeSpec) else network
            run(images)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: the layers do not fit each other near {entered[0]}: {error}.\n"
            "The file was put together from several models or damaged; make it again."
        ) from None
    finally:
        for hook in hooks:
            hook.remove()


def read_published(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pth``, ``.pt`` or ``.tar`` file without running anything in it.

    Raises:
        MissingError: There is no such file.
        CheckpointError: It holds something other than named tensors, or is damaged.
    """
    if not path.is_file():
        raise MissingError(f"There is no file {path}.\nCheck the path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path} holds more than tensors and is not read, since that could run code in it"
            f" ({reason[0] if reason else 'unreadable pickle'}).\n"
            "Where you trust its author, load it there and save its state_dict() alone."
        ) from None
    except _GARBLED as error:
        raise CheckpointError(
            f"{path} is damaged or no weight file: {error}.\nFetch it again."
        ) from None
    tensors = _unwrapped(content)
    if tensors is None:
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a state dict of named tensors.\n"
            "Save the model's state_dict() instead."
        )
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def rename(
    tensors: Mapping[str, Tensor], prefixes: Mapping[str, str], *, where: str
) -> dict[str, Tensor]:
    """Return ``tensors`` by the names the module has for them.

    Args:
        tensors: A state dict.
        prefixes: Prefix of a foreign name -> prefix of the module's.
        where: Where the tensors come from, for error messages.

    Raises:
        CheckpointError: Two tensors would get one name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        new = prefixes.get(prefix, "") + name.removeprefix(prefix)
        if new in renamed:
            raise CheckpointError(
                f"{where}: two tensors are called {new}, one of them by another spelling.\n"
                "It is unclear which of them was trained; fetch the published file again."
            )
        renamed[new] = tensor
    return renamed


def drop_aliases(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], *, where: str
) -> dict[str, Tensor]:
    """Return ``tensors`` without second names of the same tensor.

    Args:
        tensors: A state dict.
        aliases: Prefix of the second name -> prefix of the name that stays.
        where: Where the tensors come from, for error messages.

    Raises:
        CheckpointError: A second name has no twin, or the twins differ.
    """
    kept: dict[str, Tensor] = {}
    dropped = 0
    for name, tensor in tensors.items():
        alias = next((prefix for prefix in aliases if name.startswith(prefix)), None)
        if alias is None:
            kept[name] = tensor
            continue
        twin = aliases[alias] + name.removeprefix(alias)
        if twin not in tensors or not torch.equal(tensor, tensors[twin]):
            raise CheckpointError(
                f"{where}: {name} should be a second name of {twin}, but "
                f"{'their values differ' if twin in tensors else 'that is not there'}.\n"
                "It is unclear which of them was trained; fetch the published file again."
            )
        dropped += 1
    if dropped:
        log.info("%s: %d tensors were second names of others and dropped", where, dropped)
    return kept


def _unwrapped(content: object) -> dict[str, Tensor] | None:
    if isinstance(content, nn.Module) or not isinstance(content, Mapping):
        return None
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrapped(content[key])
    if all(isinstance(tensor, Tensor) for tensor in content.values()):
        return dict(content)
    return None


def _expect_safetensors(path: Path) -> None:
    if not path.is_file():
        raise MissingError(f"There is no checkpoint {path}.\nCheck the path.")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the header's length in eight bytes, which may look like
    # anything, and then its JSON.
    if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise CheckpointError(
            f"{path} is a pickled PyTorch file, which can run code when loaded and has no spec.\n"
            "Say whose weights it holds: slimface.model.zoo.import_weights(path, like='eresfd') "
            "reads its tensors only; keep the result with slimface.model.checkpoint.save."
        )


def _check_keys(
    expected: Iterable[str], found: Iterable[str], *, spec: ModelSpec, where: str
) -> None:
    missing = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    if not missing and not surplus:
        return
    lines = [f"{where} does not hold the tensors of {spec.name}:"]
    for what, names in (("missing", missing), ("unknown", surplus)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"  {len(names)} {what}: {', '.join(names[:3])}{more}")
    lines.append("The file belongs to another architecture or variant, or is incomplete.")
    raise CheckpointError("\n".join(lines))
