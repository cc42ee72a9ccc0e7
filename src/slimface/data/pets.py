"""Oxford-IIIT Pet: 37 breeds of cats and dogs.

Source: Parkhi et al., "Cats and Dogs", CVPR 2012. https://www.robots.ox.ac.uk/~vgg/data/pets/
Annotations and pictures are CC BY-SA 4.0.
"""

import os
from pathlib import Path
from typing import Literal

from slimface.data.folders import ClassSource, divided
from slimface.data.labelled import Labelled, LabelledSet, LabelledSplit
from slimface.errors import DataError, MissingError

ADDRESS = "https://thor.robots.ox.ac.uk/pets"
"""Where images.tar.gz (792 MB) and annotations.tar.gz (19 MB) are."""

FOLDER = "oxford-iiit-pet"
VAL = 0.1
"""Share of the 3,680 training pictures by which decisions are made; the 3,669 test pictures are
for reports alone."""


class Pets(ClassSource):
    """Oxford-IIIT Pet, downloaded on first use by torchvision, which checks the files."""

    kind: Literal["pets"] = "pets"
    root: str = ""
    """The folder that holds ``oxford-iiit-pet``; empty: SLIMFACE_PETS, else the cache."""

    def place(self) -> Path:
        """Return the folder that holds ``oxford-iiit-pet``, whether it is there or not."""
        home = Path(os.environ.get("SLIMFACE_HOME") or Path.home() / ".cache" / "slimface")
        return Path(self.root or os.environ.get("SLIMFACE_PETS") or home)

    def labelled(self, split: LabelledSplit) -> LabelledSet:
        """Read a split; fetch the data set first if it is not there.

        Raises:
            MissingError: It is neither there nor to be had.
            DataError: It is not complete.
        """
        root = self.place() / FOLDER
        if not (root / "annotations" / "trainval.txt").is_file():
            _fetch(self.place())
        if split == "test":
            return _read(root, "test")
        return divided(_read(root, "trainval"), split, val=VAL, test=0)


def _read(root: Path, split: str) -> LabelledSet:
    listing = root / "annotations" / f"{split}.txt"
    names: dict[int, str] = {}
    found = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split()
        if line.startswith("#") or not cells:
            continue
        if len(cells) != 4 or not cells[1].isdigit():
            raise DataError(
                f"{listing}:{number}: a line is 'NAME CLASS SPECIES BREED', not {line!r}.\n"
                "Remove the folder and let it be fetched again."
            )
        label = int(cells[1]) - 1
        breed = cells[0].rpartition("_")[0].replace("_", " ").title()
        names.setdefault(label, breed)
        path = root / "images" / f"{cells[0]}.jpg"
        found.append(Labelled(path.name, path, label))
    if sorted(names) != list(range(len(names))) or not names:
        raise DataError(
            f"{listing}: the classes are not numbered from 1 on without a gap.\n"
            "Remove the folder and let it be fetched again."
        )
    absent = next((one.path for one in found if not one.path.is_file()), None)
    if absent is not None:
        raise DataError(
            f"{absent} is not there, though {listing.name} names it.\n"
            f"Unpack {ADDRESS}/images.tar.gz into {root}."
        )
    classes = tuple(names[label] for label in range(len(names)))
    return LabelledSet(f"pets {split}", classes, tuple(found))


def _fetch(place: Path) -> None:
    advice = (
        f"Where there is a network, fetch {ADDRESS}/images.tar.gz and annotations.tar.gz, unpack "
        f"both into DIR/{FOLDER}, and name DIR with --data pets:DIR or SLIMFACE_PETS.\n"
        "`--data drawn-breeds` needs no download."
    )
    if os.environ.get("SLIMFACE_OFFLINE", "0") not in ("", "0"):
        raise MissingError(
            f"Oxford-IIIT Pet is not in {place / FOLDER}, and SLIMFACE_OFFLINE forbids the network."
            f"\n{advice}"
        )
    from torchvision.datasets import OxfordIIITPet

    try:
        OxfordIIITPet(str(place), download=True)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingError(
            f"Oxford-IIIT Pet is not in {place / FOLDER} and could not be fetched ({reason})."
            f"\n{advice}"
        ) from None
