"""Net: one net of a cascade pruned in rounds, ranked on crops, trained after each."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

from pydantic import Field
from torch import nn

from slimface.compress.prune.allocate import Global, Scores
from slimface.compress.prune.importance import Taylor, importances
from slimface.compress.prune.iterative import InRounds
from slimface.compress.prune.probe import Probe
from slimface.compress.prune.step import Prune
from slimface.model.cascade import net_of, with_nets
from slimface.model.channels import ChannelGroup, channel_groups
from slimface.model.detector import Detector
from slimface.order import Terms
from slimface.step import Context
from slimface.train.around import innermost
from slimface.train.crops import CropBatches
from slimface.train.nets import CROPS, TrainNet

_CASCADE = Prune(importance=Taylor(signed=True, normalise="l2"), allocator=Global(rate=0.5))
"""The rule of the published cascades: gradient times activation of each filter, added up over the
pictures, its absolute value divided by the norm of the layer's, one threshold for all layers."""


class PruneNet(InRounds):
    """Prune one net of a cascade in rounds; the others stay as they are.

    Convolutions are ranked, and linear layers are not, as published; those lose the inputs that
    are gone.

    Source: Molchanov et al., ICLR 2017, arXiv:1611.06440, as in the published prunings of MTCNN.
    Those rank on the validation crops; here it is the training crops, so that nothing of the
    validation pictures is seen.
    """

    kind: Literal["prune_net"] = "prune_net"
    train: TrainNet
    """Of which net, and what follows each removal."""

    prune: Prune = _CASCADE
    rounds: int = Field(default=6, gt=0)
    batches: int = Field(default=16, gt=0)
    """Batches of crops to rank on, each as large as those of the training."""

    def terms(self) -> Terms:
        """Return what the step needs of the steps before it, and what it leaves."""
        return self.prune.terms() | self.train.terms()

    def __call__(self, detector: Detector, context: Context) -> Detector:
        """Return the cascade with the smaller net.

        Raises:
            BudgetError: The budget cannot be met.
            UsageError: The detector is no cascade, or there are no pictures.
        """
        # Cut once, for all rounds: the nets before this one stay as they are.
        train = self.train
        if not train.crops:
            train.find_crops(detector, context)
            train = train.model_copy(update={"crops": str(context.folder / CROPS)})
        net = net_of(detector, train.net, where=detector.spec.name)

        def learn(narrow: Detector, inside: Context) -> Detector:
            whole = with_nets(detector, {train.net: narrow})
            return net_of(train(whole, inside), train.net, where=detector.spec.name)

        ready = self.model_copy(update={"train": train, "prune": self.cut_of(net)})
        smaller = ready.walk(net, context, learn, train.schedule.epochs)
        return with_nets(detector, {train.net: smaller})

    def cut_of(self, net: Detector) -> Prune:
        """Return what is removed, with MACs counted for the crops that a net sees."""
        height, width = net.trace_size
        return self.prune.model_copy(update={"height_px": height, "width_px": width})

    def groups(self, detector: Detector) -> tuple[ChannelGroup, ...]:
        """Return the channel groups, of which only those of convolutions can be cut."""
        return tuple(
            replace(group, prunable=False, reason="linear layers are not ranked")
            if group.prunable and isinstance(_writer(detector, group), nn.Linear)
            else group
            for group in channel_groups(detector)
        )

    def score(
        self, detector: Detector, groups: tuple[ChannelGroup, ...], context: Context
    ) -> Scores:
        """Value every channel on crops."""
        learn, _ = self.train.find_crops(detector, context).split(self.train.holdout)
        size = self.train.schedule.batch_size
        loader = CropBatches(learn, batch_size=size, seed=context.seed, mirror=False)
        seen: Sequence[Any] = list(islice(loader.epoch(0), self.batches))
        probe = Probe(seen, innermost(self.train.criterion))
        return importances(detector, groups, self.prune.importance, probe)


def _writer(detector: Detector, group: ChannelGroup) -> nn.Module:
    """The layer that a group is named after."""
    return detector.get_submodule(group.name.partition("#")[0])
