"""Teacher: a model that tells another one what to answer."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slimface.core.faces import Faces
from slimface.core.spec import CascadeSpec, ClassifierSpec, DetectorSpec, ModelSpec
from slimface.deploy.pipeline import Settings
from slimface.errors import UsageError
from slimface.model.detector import Detector, RawTensors
from slimface.model.mtcnn import Stage
from slimface.model.network import Network
from slimface.model.predictor import pipeline

_MB = 2**20


class Teacher:
    """A model in evaluation mode, without gradients, on the device of its student.

    Args:
        network: What it knows.
        device: Where the student learns.
        cache_mb: Answers are kept up to this size and not computed again for a picture that
            comes again, to the pixel.
    """

    def __init__(self, network: Network, device: torch.device, *, cache_mb: int = 0) -> None:
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.eval().requires_grad_(False)
        self.device = device
        self.maps = Maps(self.network)
        # A net of a cascade finds no faces by itself: it answers to crops.
        finds = isinstance(network, Detector) and not isinstance(network, Stage)
        self._find = pipeline(network, device=device) if finds else None  # type: ignore[arg-type]
        self._kept = _Kept(cache_mb * _MB)

    def answer(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the network says about 8-bit pictures ``(b, 3, height, width)``.

        Returns:
            ``logits``; for detectors ``offsets`` and perhaps ``landmarks``; and what the heads read
            as ``map 0``, ``map 1``, …
        """
        return self._kept(images, self._answer)

    def faces(self, images: Tensor, floor: float) -> list[Faces]:
        """Return the faces that the network finds on 8-bit pictures, scores from ``floor`` on."""
        assert self._find is not None
        pictures = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [self._find.detect(one, Settings(score_floor=floor)) for one in pictures]

    @torch.no_grad()
    def _answer(self, images: Tensor) -> dict[str, Tensor]:
        given = self.network.prepare(images.to(self.device))
        raw = self.network(given.contiguous(memory_format=torch.channels_last))
        said: dict[str, Tensor | None] = (
            raw._asdict() if isinstance(raw, RawTensors) else {"logits": raw}
        )
        maps = {f"map {i}": value for i, value in enumerate(self.maps.take())}
        return {name: value for name, value in {**said, **maps}.items() if value is not None}


class Maps:
    """What the heads of a network read: the pyramid of a detector, the features of a classifier."""

    def __init__(self, network: Network) -> None:
        self._seen: list[Tensor] = []
        # Copies of the network, which are validated, write here as well.
        network.register_forward_pre_hook(_forgetting(self._seen))
        for name in network.head_names:
            network.get_submodule(name).register_forward_pre_hook(_noting(self._seen))

    def take(self) -> list[Tensor]:
        """Return what the heads read in the last pass, each map once, and forget it."""
        seen = list(self._seen)
        self._seen.clear()
        return seen


def _forgetting(seen: list[Tensor]) -> Callable[[nn.Module, Any], None]:
    return lambda *_: seen.clear()


def _noting(seen: list[Tensor]) -> Callable[[nn.Module, Any], None]:
    # A function, not a method: copies of the network must not carry copies of what was seen.
    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not any(inputs[0] is other for other in seen):
            seen.append(inputs[0])

    return note


def check_pair(student: Network, teacher: Network) -> None:
    """Refuse a teacher that has nothing to say to this student; see ``check_specs``."""
    check_specs(student.spec, teacher.spec)


def check_specs(mine: ModelSpec, theirs: ModelSpec, *, classes: bool = True) -> None:
    """Refuse a teacher that has nothing to say to a student.

    Args:
        mine: The student's spec.
        theirs: The teacher's.
        classes: Whether the classes are known already, and must be the same.

    Raises:
        UsageError: It has another task, other classes or other landmarks, or the student is a
            cascade, whose nets only learn from those of another.
    """
    if isinstance(mine, CascadeSpec):
        if isinstance(theirs, CascadeSpec):
            return
        raise UsageError(
            f"{mine.name} is a cascade; its nets learn from crops, on which {theirs.name} finds no "
            "faces.\nName a cascade as the teacher, such as mtcnn, or distil into a detector of "
            "one net."
        )
    if isinstance(mine, ClassifierSpec) != isinstance(theirs, ClassifierSpec):
        raise UsageError(
            f"{theirs.name} does {theirs.task} and cannot teach {mine.name}, which does "
            f"{mine.task}.\nName a teacher of the same task."
        )
    if isinstance(mine, ClassifierSpec) and isinstance(theirs, ClassifierSpec):
        if classes and mine.classes != theirs.classes:
            raise UsageError(
                f"{theirs.name} knows {_few(theirs.classes)} and {mine.name} {_few(mine.classes)}"
                ".\nA teacher has the same classes in the same order; train it on the same data."
            )
        return
    assert isinstance(mine, DetectorSpec) and isinstance(theirs, DetectorSpec)
    if mine.landmarks and theirs.landmarks and mine.landmarks != theirs.landmarks:
        raise UsageError(
            f"{theirs.name} finds {theirs.landmarks} landmarks a face, {mine.name} "
            f"{mine.landmarks}.\nName a teacher with as many landmarks, or with none."
        )


def same_cells(student: DetectorSpec, teacher: DetectorSpec, height: int, width: int) -> bool:
    """Whether each anchor of the student has one of the teacher's in the same place."""
    if isinstance(teacher, CascadeSpec):
        return False
    multiple = teacher.preprocess.multiple_of
    if height % multiple or width % multiple:
        return False
    first, second = (spec.anchors.anchors(height, width) for spec in (student, teacher))
    return first.shape == second.shape and bool((first[:, :2] == second[:, :2]).all())


def _few(classes: tuple[str, ...]) -> str:
    more = ", …" if len(classes) > 3 else ""
    return f"{len(classes)} classes ({', '.join(classes[:3])}{more})"


class _Kept:
    """Answers by the content of the picture, the oldest of which go when there is no more room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.used = 0
        self._answers: OrderedDict[bytes, dict[str, Tensor]] = OrderedDict()

    def __call__(
        self, images: Tensor, ask: Callable[[Tensor], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        if not self.room:
            return ask(images)
        keys = [
            hashlib.blake2b(one.cpu().contiguous().numpy().tobytes()).digest() for one in images
        ]
        fresh = [i for i, key in enumerate(keys) if key not in self._answers]
        found = {key: self._answers[key] for key in keys if key in self._answers}
        if fresh:
            said = ask(images[fresh])
            for row, i in enumerate(fresh):
                found[keys[i]] = {name: value[row].clone() for name, value in said.items()}
                self._keep(keys[i], found[keys[i]])
        return {name: torch.stack([found[key][name] for key in keys]) for name in found[keys[0]]}

    def _keep(self, key: bytes, answer: dict[str, Tensor]) -> None:
        if key in self._answers:
            return
        self._answers[key] = answer
        self.used += _bytes(answer)
        while self.used > self.room:
            self.used -= _bytes(self._answers.popitem(last=False)[1])


def _bytes(answer: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in answer.values())
