"""Criteria: all that a recipe can name as what training makes small."""

from typing import Annotated

from pydantic import Field

from slimface.train.classes import CrossEntropy
from slimface.train.criterion import MultiBox
from slimface.train.crops import CropLoss
from slimface.train.distill import Distill
from slimface.train.iou_aware import IouAware
from slimface.train.regularise import GroupLasso, GrowingL2

AnyCriterion = Annotated[
    MultiBox | IouAware | CrossEntropy | CropLoss | Distill | GroupLasso | GrowingL2,
    Field(discriminator="kind"),
]
"""Adding a criterion costs its class and its name here; one around others, a line below too."""

for _around in (Distill, GroupLasso, GrowingL2):
    # They may be around each other, which can only be said once all are known.
    _around.model_rebuild(_types_namespace={"AnyCriterion": AnyCriterion})
