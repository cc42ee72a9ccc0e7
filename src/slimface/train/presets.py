"""Presets: how each family is trained, the one place for all of them.

A preset is the ``Train`` step that made the published weights, as far as its authors say it, for
training from scratch. ``adapted`` fits it to another length, batch or start.
"""

from collections.abc import Callable
from typing import Any

from slimface.core.spec import DetectorSpec, ModelSpec
from slimface.data.labelled import CropFlip
from slimface.data.transforms import RetinaFaceAugment, S3fdAugment
from slimface.errors import UsageError
from slimface.train.assign import BestOverlap
from slimface.train.classes import CrossEntropy
from slimface.train.criterion import MultiBox
from slimface.train.iou_aware import IouAware
from slimface.train.schedule import Schedule
from slimface.train.step import Train

ONWARDS = 0.1
"""Share of the learning rate with which trained weights are trained on, where it has no steps."""


def preset(spec: ModelSpec) -> Train:
    """Return the training of a model's family, or ``general`` for one that has none of its own.

    Raises:
        UsageError: It is no detector of whole pictures, so crops of pictures do not train it.
    """
    family = FAMILIES.get(spec.architecture.name)
    if family is None and spec.task != "detection":
        raise UsageError(
            f"Nothing says how {spec.architecture.name} is trained.\n"
            f"Families with a preset: {', '.join(FAMILIES)}; others are trained by a recipe."
        )
    return (family or general)(spec)  # type: ignore[arg-type]  # the task was checked above


def adapted(
    train: Train,
    *,
    onwards: bool = False,
    frozen_norms: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    optimizer: str | None = None,
) -> Train:
    """Return a preset for another length, batch or start.

    Warm-up and decay keep their share of the epochs. The learning rate goes with the batch size
    (Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677, section 2.1; Adam's
    does not). Weights that are trained already go on with the rate that theirs ended with after
    its steps, or a tenth where there are none.

    Args:
        train: The preset.
        onwards: Whether training starts from trained weights.
        frozen_norms: Whether batch norms keep their statistics: for published weights, which have
            those of whole pictures. What was cut since needs others.
        epochs: None: as in the preset; so for the others.
        batch_size: Pictures a step.
        learning_rate: Used as it is.
        optimizer: Another than the preset's needs a learning rate, too.

    Raises:
        UsageError: The learning rate of one optimizer was to be used for another.
    """
    plan = train.schedule
    length = epochs if epochs is not None else plan.epochs
    batch = batch_size if batch_size is not None else plan.batch_size
    rate = learning_rate
    if optimizer not in (None, plan.optimizer) and rate is None:
        raise UsageError(
            f"The preset's learning rate is one for {plan.optimizer}, not for {optimizer}.\n"
            "Say the learning rate as well (--lr)."
        )
    if rate is None:
        growth = batch / plan.batch_size if plan.optimizer == "sgd" else 1.0
        rate = plan.learning_rate * growth * (_onwards(plan) if onwards else 1.0)
    share = length / plan.epochs
    changes = {
        "epochs": length,
        "batch_size": batch,
        "learning_rate": rate,
        "optimizer": optimizer or plan.optimizer,
        "warmup_epochs": plan.warmup_epochs * min(share, 1.0),
        "decay_epochs": tuple(at * share for at in plan.decay_epochs),
        "frozen_norms": frozen_norms,
    }
    return train.model_copy(update={"schedule": plan.model_copy(update=changes)})


def general(spec: DetectorSpec) -> Train:
    """What to begin with where no paper says better; ours."""
    return Train(
        schedule=Schedule(
            epochs=100, batch_size=16, learning_rate=1e-3, ema=0.998, warmup_epochs=3.0
        )
    )


def _onwards(plan: Schedule) -> float:
    return ONWARDS ** len(plan.decay_epochs) if plan.decay == "steps" else ONWARDS


def eresfd(spec: DetectorSpec) -> Train:
    """EResFD. Its authors say batch 16 and a rate of 0.001; the rest is ours, for short trainings.

    Source: Jeong et al., "EResFD: Rediscovery of the Effectiveness of Standard Convolution for
    Lightweight Face Detection", WACV 2024, arXiv:2204.01209; clovaai/EResFD has no trainer.
    """
    return Train(
        schedule=Schedule(
            epochs=30, batch_size=16, learning_rate=1e-3, ema=0.998, warmup_epochs=3.0
        )
    )


def extd(spec: DetectorSpec) -> Train:
    """EXTD: 480 thousand steps of SGD with 16 pictures of WIDER FACE.

    Source: Yoo et al., "EXTD: Extremely Tiny Face Detector via Iterative Filter Reuse", 2019,
    arXiv:1906.06579, section 4.1, and the trainer of clovaai/EXTD_Pytorch's lineage: the rate
    falls after 240 and 360 thousand steps, 805 to an epoch.
    """
    return Train(
        schedule=Schedule(
            epochs=600,
            batch_size=16,
            optimizer="sgd",
            learning_rate=1e-3,
            decay="steps",
            decay_epochs=(298, 447),
        ),
        augment=S3fdAugment(),
    )


def retinaface(spec: DetectorSpec) -> Train:
    """RetinaFace: one course for ResNet50, another for all smaller backbones.

    Source: biubug6/Pytorch_Retinaface. The published warm-up is none; gradients of random weights
    are clipped here, which they were not there.
    """
    large = spec.architecture.options.get("backbone") == "resnet50"
    schedule = Schedule(
        epochs=100 if large else 250,
        batch_size=24 if large else 32,
        optimizer="sgd",
        learning_rate=1e-3,
        decay="steps",
        decay_epochs=(70, 90) if large else (190, 220),
    )
    return Train(
        schedule=schedule,
        criterion=MultiBox(matching=BestOverlap(), negatives_per_positive=7, box_weight=2),
        augment=RetinaFaceAugment(),
        size_px=840 if large else 640,
    )


def yunet(spec: DetectorSpec) -> Train:
    """YuNet: matching, losses, crops and course of its published configuration.

    Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence
    Research, 2023, section 4.1; configs/yunet_n.py of ShiqiYu/libfacedetection.train. Two cards
    with 16 pictures each; colours stay as they are.
    """
    return Train(
        schedule=Schedule(
            epochs=640,
            batch_size=32,
            optimizer="sgd",
            learning_rate=1e-2,
            warmup_epochs=3.7,
            decay="steps",
            decay_epochs=(400, 544),
        ),
        criterion=IouAware(),
        augment=RetinaFaceAugment(filters="linear", colour_share=0),
    )


def classifier(spec: Any) -> Train:
    """Image classifiers: the course of the survey of compression for faces, on Oxford-IIIT Pet.

    Source: arXiv:2408.08250 and its code. Its batch is 128, its weight decay 0.001 within Adam.
    """
    return Train(
        schedule=Schedule(
            epochs=100,
            batch_size=128,
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=1e-3,
            decay="steps",
            decay_epochs=(15, 30, 45, 60, 75, 90),
        ),
        criterion=CrossEntropy(),
        augment=CropFlip(),
    )


FAMILIES: dict[str, Callable[[Any], Train]] = {
    "classifier": classifier,
    "eresfd": eresfd,
    "extd": extd,
    "retinaface": retinaface,
    "yunet": yunet,
}
"""Architecture -> its training, where a paper has one of its own. One line a family."""
