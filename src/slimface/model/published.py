"""Published: what the zoo knows of a model that others have trained."""

from collections.abc import Mapping

from slimface.core.spec import DetectorSpec
from slimface.core.value import Value
from slimface.model.checkpoint import Provenance

ACADEMIC = "academic, non-commercial"
LFDP = "IDT-ITI/Lightweight-Face-Detector-Pruning"


class Archive(Value):
    """A published zip file, or wheel, with a weight file in it."""

    member: str
    """Path of the weight file inside."""

    sha256: str
    size: int
    """Bytes."""


class WeightFile(Value):
    """A published file."""

    path: str
    """Where it stands below a folder of weights."""

    url: str
    sha256: str
    size: int
    """Bytes."""

    prefix: str = ""
    """Goes in front of the file's keys, for files that hold a part of the model."""

    archive: Archive | None = None
    """What ``url`` leads to, if the file is only published inside of something else."""


class Entry(Value):
    """A published model."""

    spec: DetectorSpec
    files: tuple[WeightFile, ...]
    licence: str
    origin: str
    note: str = ""
    aliases: Mapping[str, str] = {}
    """Prefixes of second names in the files -> prefixes of the names that stay."""

    renames: Mapping[str, str] = {}
    """Prefixes in some variants of the files -> prefixes of the module's names."""

    @property
    def name(self) -> str:
        """What the model is called on the command line."""
        return self.spec.name

    @property
    def restricted(self) -> bool:
        """Whether its terms forbid use in a product."""
        return self.licence == ACADEMIC

    @property
    def provenance(self) -> Provenance:
        """Where models made from it come from; its terms bind them."""
        return Provenance(origin=self.origin, licence=self.licence)


def github(
    repository: str, commit: str, path: str, *, local: str, sha256: str, size: int, prefix: str = ""
) -> WeightFile:
    """Return a file of a GitHub repository at a commit."""
    quoted = path.replace(" ", "%20")
    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{quoted}"
    return WeightFile(path=local, url=url, sha256=sha256, size=size, prefix=prefix)


def lfdp_file(commit: str, path: str, local: str, sha256: str, size: int) -> WeightFile:
    """Return a file of the repository that has pruned both EResFD and EXTD."""
    return github(LFDP, commit, path, local=local, sha256=sha256, size=size)
