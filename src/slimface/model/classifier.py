"""Classifier: any image classifier of timm or torchvision, as a network of the house."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slimface.core.spec import Architecture, ClassifierSpec, WholePicture
from slimface.errors import MissingError, RecipeError
from slimface.model.network import Network

FAMILY = "classifier"
"""What names of classifiers begin with: ``classifier:resnet18``."""

TORCHVISION = "torchvision/"
"""Names of torchvision's models begin with this; all others are timm's."""

IMAGENET = WholePicture(
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    deviation=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
"""What nearly all published weights were trained with."""

_SMALL = (64, 64)


class Classifier(Network):
    """Normalised pictures in, a logit for each class out."""

    spec: ClassifierSpec

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__(spec)
        options = dict(spec.architecture.options)
        name = options.pop("model", None)
        if not isinstance(name, str) or options:
            raise RecipeError(
                f"A classifier has the option model and no other; {spec.name} has "
                f"{dict(spec.architecture.options)}.\n"
                "Write architecture: {name: classifier, options: {model: resnet18}}."
            )
        self.body = create(name, len(spec.classes))
        head = _head_of(self.body, len(spec.classes), name)
        self.head_names = (f"body.{head}",)
        size = self.input_size = spec.preprocess.height_px, spec.preprocess.width_px
        self.trace_size = _SMALL if min(size) > _SMALL[0] and _takes(self, _SMALL) else size

    @property
    def head(self) -> nn.Linear:
        """The layer that writes the logits."""
        head = self.get_submodule(self.head_names[0])
        assert isinstance(head, nn.Linear)
        return head

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.body(images),)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(b, classes)`` of normalised pictures ``(b, 3, height, width)``."""
        logits: Tensor = self.body(images)
        return logits


def classifier(
    model: str,
    classes: Sequence[str],
    *,
    name: str | None = None,
    preprocess: WholePicture = IMAGENET,
) -> ClassifierSpec:
    """Return the spec of a classifier.

    Args:
        model: A name of timm's (``resnet18``), or one of torchvision's (``torchvision/resnet18``).
        classes: Their names, in the order of the outputs.
        name: What it is to be called; by its model if not given.
        preprocess: From pictures to its input.
    """
    return ClassifierSpec(
        name=name or model.removeprefix(TORCHVISION),
        architecture=Architecture(name=FAMILY, options={"model": model}),
        preprocess=preprocess,
        classes=tuple(classes),
    )


def load_pretrained_(classifier: Classifier) -> None:
    """Give a classifier the ImageNet weights its library publishes, all but the last layer.

    Raises:
        MissingError: They are not to be had.
    """
    model = str(classifier.spec.architecture.options["model"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            published = create(model, None, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise MissingError(
            f"The ImageNet weights of {model} are not to be had ({_first_line(error)}).\n"
            "Start from random weights (--scratch), or from a checkpoint."
        ) from None
    head = classifier.head_names[0].removeprefix("body.")
    own = classifier.body.state_dict()
    # Updated in place: a state knows the versions of its layers, and a copy forgets them.
    own.update({key: value for key, value in published.items() if not key.startswith(f"{head}.")})
    classifier.body.load_state_dict(own, strict=True)


def create(model: str, classes: int | None, *, pretrained: bool = False) -> nn.Module:
    """Make a network of timm or torchvision.

    Args:
        model: Its name; torchvision's begin with ``torchvision/``.
        classes: Number of outputs; None for those of the published weights.
        pretrained: With the published weights, which are downloaded.

    Raises:
        MissingError: timm is not installed.
        RecipeError: There is no such model.
    """
    if model.startswith(TORCHVISION):
        return _from_torchvision(model.removeprefix(TORCHVISION), classes, pretrained)
    try:
        import timm
    except ImportError as error:
        raise MissingError(
            f"The classifier {model} needs the package timm, which is not installed.\n"
            "Install it with: pip install 'slimface[timm]', or name one of torchvision's, such as "
            f"{FAMILY}:{TORCHVISION}resnet18."
        ) from error
    if not timm.is_model(model):
        raise _unknown(model, timm.list_models())
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    made: nn.Module = timm.create_model(model, pretrained=pretrained, **options)
    return made


def _from_torchvision(model: str, classes: int | None, pretrained: bool) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        raise _unknown(TORCHVISION + model, [TORCHVISION + name for name in known])
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if model in ("googlenet", "inception_v3"):
        # Their helping outputs, in training only, would make the answer another kind of thing.
        options |= {"aux_logits": False, "init_weights": True}
    made: nn.Module = torchvision.models.get_model(
        model, weights="DEFAULT" if pretrained else None, **options
    )
    return made


def _unknown(model: str, known: Sequence[str]) -> RecipeError:
    near = difflib.get_close_matches(model, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "timm.list_models() lists timm's."
    return RecipeError(f"There is no classifier called {model!r}.\n{hint}")


def _head_of(body: nn.Module, classes: int, model: str) -> str:
    """The name of the linear layer that writes the logits: the last one of that width."""
    named: Mapping[str, nn.Module] = dict(body.named_modules())
    fitting = [
        name
        for name, layer in named.items()
        if isinstance(layer, nn.Linear) and layer.out_features == classes
    ]
    if not fitting:
        raise RecipeError(
            f"{model} does not end in a linear layer, so it is no classifier slimface can train.\n"
            "Choose another one, such as resnet18."
        )
    return fitting[-1]


def _takes(classifier: Classifier, size: tuple[int, int]) -> bool:
    """Whether a picture this small goes through (transformers want the one size they know)."""
    training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            classifier(torch.zeros(1, 3, *size))
    except (AssertionError, RuntimeError, ValueError):
        return False
    finally:
        classifier.train(training)
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
