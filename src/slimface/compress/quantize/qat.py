"""QAT: the step that trains a model to live with eight bits."""

import copy
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from slimface.compress.quantize import choice
from slimface.compress.quantize.calibrate import WHOLE, shown_to_networks
from slimface.compress.quantize.calls import calls_of, glimpses
from slimface.compress.quantize.choice import Chosen
from slimface.compress.quantize.export import spread, write_float
from slimface.compress.quantize.fake import fake_quantize_, roundings_of
from slimface.compress.quantize.grid import grid_of
from slimface.compress.quantize.qdq import Graph, short
from slimface.compress.quantize.settings import Quantization, Rounding
from slimface.compress.quantize.takeover import take_over_
from slimface.core.faces import Floats
from slimface.core.grid import Grid
from slimface.errors import UsageError
from slimface.loading import load_any
from slimface.model.cascade import net_of
from slimface.model.checkpoint import set_grid
from slimface.model.mtcnn import MTCNN
from slimface.model.network import Network
from slimface.order import FLOAT, LEARNT, QUANTISED, Terms
from slimface.step import Context
from slimface.train.nets import TrainNet
from slimface.train.step import Train

log = logging.getLogger(__name__)

N = TypeVar("N", bound=Network)


class Qat(Rounding):
    """Train with weights and activations rounded exactly as the file will round them.

    The file of eight bits is made first, as ``quantize`` would make it; then the model learns with
    its layers, its ranges and its places of rounding. What comes out is a float model that knows
    what it has learnt with, and ``quantize`` behind it writes that, and chooses nothing anew.
    """

    kind: Literal["qat"] = "qat"
    train: Annotated[Train | TrainNet, Field(discriminator="kind")]
    """The training, with its criterion (a teacher, for one) and schedule. A few epochs at a
    hundredth of the first learning rate will do."""

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
        own: Any = copy.deepcopy(detector).cpu().eval()
        name = WHOLE
        if isinstance(own, MTCNN) and isinstance(self.train, TrainNet):
            name = self.train.net
        grid = self.prepare_(own, name, context)
        trained: Any = self.train.learn(own, context)
        set_grid(_net(trained, name), grid)
        return cast(N, trained)

    def prepare_(self, model: Any, name: str, context: Context) -> Grid:
        """Let a model, or a net of a cascade, round as its file will, and return how.

        Args:
            model: In evaluation mode. Its weights become those that the file rounds: norms folded,
                channels evened out and biases corrected where that was chosen.
            name: Of the net; empty for the whole model.
            context: Has the pictures to calibrate on.
        """
        import onnx

        assert context.source is not None
        with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
            source = write_float(model, Path(scratch))
            pictures = spread(context.source, "train", self.pictures)
            inputs = shown_to_networks(load_any(source, threads=1), pictures)[name]
            graph = onnx.load(source if name == WHOLE else source / f"{name}.onnx")
        return self._round_(_net(model, name), graph, inputs, context, whole=name == WHOLE)

    def _round_(
        self, net: Network, model: Any, inputs: Sequence[Floats], context: Context, *, whole: bool
    ) -> Grid:
        seen = glimpses(net, inputs)
        calls = calls_of(net, seen)

        def choose(**changes: Any) -> tuple[Graph, Chosen]:
            asked = {field: getattr(self, field) for field in Rounding.model_fields}
            settings = Quantization(**{**asked, **changes})
            network = choice.Network(model, inputs, settings, whole=whole)
            return network.plain, choice.for_onnxruntime(network, context.track)

        graph, chosen = choose()
        weights = chosen.graph.prepared(chosen.layers, chosen.how)
        if not take_over_(net, graph, weights, calls, seen):
            log.warning("Layers of several uses: channels are not evened out, biases not corrected")
            graph, chosen = choose(equalise=False, correct=False)
        roundings = roundings_of(graph, chosen, calls, seen)
        fake_quantize_(net, roundings)
        found = {
            "layers": len(roundings.layers),
            "kept": [short(layer) for layer in graph.layers if layer in chosen.kept],
            "ranges": chosen.how.ranges,
            "bits": self.bits,
            "pictures": self.pictures,
            "equalised": chosen.equalised,
            "corrected": chosen.how.correct,
            "sqnr_db": round(chosen.sqnr_db, 2),
        }
        log.info("%d layers learn with weights of %d bits", found["layers"], self.bits)
        context.record("qat", found)
        return grid_of(chosen.graph, chosen.layers, chosen.how, self)


def _net(model: Any, name: str) -> Network:
    return net_of(model, name, where=model.spec.name) if name else cast(Network, model)
