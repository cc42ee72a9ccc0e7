"""Nets: the step that trains one net of a cascade on crops, mined with the nets before it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from slimface.core.spec import CASCADE_NETS
from slimface.core.value import Value
from slimface.data.crop_set import CropSet, Opening, make_crops
from slimface.data.crops import Cuts, Net
from slimface.errors import UsageError
from slimface.model.cascade import net_of, with_nets
from slimface.model.checkpoint import fingerprint
from slimface.model.detector import Detector
from slimface.model.mtcnn import MTCNN, Stage
from slimface.model.network import Network
from slimface.model.predictor import pipeline
from slimface.order import FLOAT, LEARNT, NORMS, ZEROED, Terms
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.course import BeforeEpoch, follow
from slimface.train.crops import PUBLISHED, CropBatches, CropLoss
from slimface.train.distill import Distill
from slimface.train.loop import validation_loss
from slimface.train.schedule import Schedule

PUBLISHED_EPOCHS = 100
CROPS = "crops"
"""Folder of the crops that a step makes, inside of its own."""


def _published(given: dict[str, Any]) -> CropLoss:
    net: Any = given.get("net")
    return PUBLISHED[net] if net in PUBLISHED else CropLoss()


class TrainNet(Value):
    """Train one net of a cascade; the others stay as they are.

    Its crops are cut first, unless a folder of them is named. Those of some pictures are held out,
    and the loss on them tells the best epoch from the last.
    """

    kind: Literal["train_net"] = "train_net"
    net: Net
    schedule: Schedule
    criterion: Annotated[CropLoss | Distill, Field(discriminator="kind")] = Field(
        default_factory=_published
    )
    """If not given, with the published weights for this net; so is what a teacher is around."""

    cuts: Cuts = Cuts()
    crops: str = ""
    """Folder made by ``slimface data crops``; empty: cut from the run's pictures."""

    mirror: bool = True
    """Mirror each second crop."""

    holdout: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the pictures whose crops are kept back to choose the best epoch."""

    keep: Literal["best", "last"] = "best"
    """Which epoch's net goes on to the next step; both are saved."""

    @model_validator(mode="before")
    @classmethod
    def _around_published(cls, given: Any) -> Any:
        match given:
            case {"net": str(), "criterion": {"kind": "distill"} as taught} if "of" not in taught:
                return {**given, "criterion": {**taught, "of": _published(given)}}
        return given

    @model_validator(mode="after")
    def _of_crops(self) -> Self:
        judge = innermost(self.criterion)
        if not isinstance(judge, CropLoss):
            raise ValueError(
                f"criterion: {getattr(judge, 'kind', judge)} is not for crops; a teacher of a net "
                "is around {kind: crops}"
            )
        return self

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return Terms(
            needs=frozenset({FLOAT, NORMS}),
            leaves=frozenset({LEARNT}),
            takes=frozenset({ZEROED}),
            tasks=frozenset({"cascade"}),
        )

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the cascade with the trained net; ``last`` and ``best`` hold the net alone.

        Raises:
            UsageError: The detector is no cascade, there are no pictures, or the crops are for
                another net.
        """
        return self.learn(detector, context)

    def learn(
        self, detector: Detector, context: Context, *, before_epoch: BeforeEpoch | None = None
    ) -> MTCNN:
        """As calling the step, with something to do to the net before each epoch."""
        net = net_of(detector, self.net, where=detector.spec.name)
        learn, check = self.find_crops(detector, context).split(self.holdout)
        torch.manual_seed(context.seed)
        batches = CropBatches(
            learn, batch_size=self.schedule.batch_size, seed=context.seed, mirror=self.mirror
        )
        trained = follow(
            net,
            batches,
            self.criterion,
            self.schedule,
            context,
            held_out=partial(self.held_out_loss, check=check),
            keep=self.keep,
            before_epoch=before_epoch,
        )
        return with_nets(detector, {self.net: trained})

    def find_crops(self, detector: Detector, context: Context) -> CropSet:
        """Return the crops of the net: those named, or cut into the context's folder.

        What was cut there before is not cut again.
        """
        if self.crops:
            found = CropSet.open(Path(self.crops))
            if found.plan.net != self.net:
                raise UsageError(
                    f"{self.crops} holds crops for {found.plan.net}, not for {self.net}.\n"
                    "Name crops that were made for this net."
                )
            return found
        if context.source is None:
            raise UsageError("Training needs pictures.\nName them with --data DIR.")
        return cut_crops(
            detector,
            self.net,
            context.folder / CROPS,
            context,
            cuts=self.cuts,
        )

    def held_out_loss(self, net: Detector, check: CropSet) -> float:
        """Return the loss on crops that the net does not learn from, as they are."""
        if not len(check):
            return 0.0
        batches = CropBatches(
            check, batch_size=self.schedule.batch_size, mirror=False, drop_last=False
        )
        return validation_loss(net, batches.epoch(0), innermost(self.criterion))


def cut_crops(
    detector: Network, net: Net, folder: Path, context: Context, *, cuts: Cuts
) -> CropSet:
    """Cut the crops of a net from the context's pictures, with the nets before it.

    Raises:
        UsageError: The detector is no cascade, or the context has no pictures.
    """
    if not isinstance(detector, MTCNN):
        raise UsageError(
            f"{detector.spec.name} is no cascade: it learns from whole pictures.\n"
            "Train it with the step 'train'."
        )
    if context.source is None:
        raise UsageError("Crops are cut from pictures.\nName them with --data DIR.")
    return make_crops(
        folder,
        context.source.pictures("train"),
        net,
        detector.spec,
        before=opening(detector, net),
        cuts=cuts,
        seed=context.seed,
        workers=context.workers,
        track=context.track,
    )


def opening(cascade: MTCNN, net: Net) -> Opening | None:
    """Return how a process opens the nets before ``net``, and what they are; None for the first."""
    before = CASCADE_NETS[: CASCADE_NETS.index(net)]
    if not before:
        return None
    open_cascade: Callable[[], Any] = partial(pipeline, cascade)
    nets: list[Stage] = [net_of(cascade, name, where=cascade.spec.name) for name in before]
    return Opening(open_cascade, "\n".join(fingerprint(one) for one in nets))


def adapted(net: Net, *, onwards: bool = False, **changes: Any) -> TrainNet:
    """Return the published training of a net, for another length, batch or start.

    Adam at 0.01, 1,024 crops a step, 100 epochs, a tenth of the rate after 10, 40 and 80 of them.

    Args:
        net: Which one.
        onwards: Whether it starts from trained weights: then with a hundredth of the rate, so that
            the nets after it, which stay, get to see what they learnt from.
        changes: Fields of the schedule; None leaves one as it was published.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    epochs = given.get("epochs", PUBLISHED_EPOCHS)
    published = {
        "epochs": epochs,
        "batch_size": 1024,
        "optimizer": "adam",
        "learning_rate": 1e-4 if onwards else 1e-2,
        "weight_decay": 0.0,
        "decay": "steps",
        "decay_epochs": tuple(at * epochs for at in (0.1, 0.4, 0.8)),
    }
    return TrainNet(net=net, schedule=Schedule.model_validate({**published, **given}))
