"""QAT: the step that trains a model to live with eight bits."""

import copy
import logging
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from slimface.compress.quantize.calibrate import WHOLE, shown_to_networks
from slimface.compress.quantize.export import spread
from slimface.compress.quantize.fake import fake_quantize_
from slimface.compress.quantize.ranges import Method
from slimface.core.value import Value
from slimface.errors import UsageError
from slimface.model.cascade import net_of
from slimface.model.classifier import Classifier
from slimface.model.mtcnn import MTCNN
from slimface.model.network import Network
from slimface.model.predictor import class_pipeline, pipeline
from slimface.order import FLOAT, LEARNT, QUANTISED, Terms
from slimface.step import Context
from slimface.train.nets import TrainNet
from slimface.train.step import Train

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)


class Qat(Value):
    """Train with weights and activations rounded as eight bits round them.

    What comes out is a float model whose weights have learnt where rounding hurts. Put ``quantize``
    behind it, which writes them as whole numbers.
    """

    kind: Literal["qat"] = "qat"
    train: Annotated[Train | TrainNet, Field(discriminator="kind")]
    """The training, with its criterion (a teacher, for one) and schedule. A few epochs at a
    hundredth of the first learning rate will do."""

    ranges: Method = "percentile"
    """How the range of an activation is chosen from what it held on the calibration pictures."""

    bits: Literal[4, 8] = 8
    """Of weights; what layers put out has eight. Say the same to ``quantize``."""

    pictures: int = Field(default=32, gt=0)
    """Training pictures to calibrate on."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        # Each net of a cascade learns in a step of its own.
        taken = frozenset() if isinstance(self.train, TrainNet) else frozenset({FLOAT})
        return self.train.terms() | Terms(
            needs=frozenset({LEARNT}), leaves=frozenset({QUANTISED}), takes=taken
        )

    def __call__(self, detector: N, context: Context) -> N:
        """Return the trained model, in float32.

        Raises:
            UsageError: There are no pictures, or no layer can be quantised.
        """
        if context.source is None:
            raise UsageError("Training needs pictures.\nName them with --data DIR.")
        own: Any = copy.deepcopy(detector)
        of = copy.deepcopy(own).cpu().eval()
        opened = class_pipeline(of) if isinstance(of, Classifier) else pipeline(of)
        inputs = shown_to_networks(opened, spread(context.source, "train", self.pictures))
        net, name = own, WHOLE
        if isinstance(own, MTCNN) and isinstance(self.train, TrainNet):
            name = self.train.net
            net = net_of(own, name, where=own.spec.name)
        layers = fake_quantize_(net, inputs[name], ranges=self.ranges, bits=self.bits)
        log.info("%d layers learn with weights of %d bits", layers, self.bits)
        said = self.model_dump(include={"ranges", "bits", "pictures"})
        context.record("qat", {"layers": layers, **said})
        trained: Any = self.train.learn(own, context)
        return cast(N, trained)
