"""ResNet50, torchvision's, without its classifier.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
"""

from torch import Tensor, nn

from slimface.errors import MissingError
from slimface.model.backbones.backbone import Backbone


class ResNet50(Backbone):
    """23.5 million parameters. Keys are torchvision's."""

    channels = (512, 1024, 2048)
    classifier_names = ("fc",)

    def __init__(self) -> None:
        super().__init__()
        try:
            from torchvision.models import resnet50
        except ImportError as error:
            raise MissingError(
                "The backbone resnet50 needs the package torchvision, which is not installed.\n"
                "Install it with: pip install 'slimface[timm]'"
            ) from error
        network = resnet50(weights=None)
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = nn.ReLU(), network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        first = self.layer2(self.layer1(stem))
        second = self.layer3(first)
        return first, second, self.layer4(second)

    def published_state(self) -> dict[str, Tensor]:
        from torchvision.models import ResNet50_Weights

        try:
            return dict(ResNet50_Weights.IMAGENET1K_V2.get_state_dict(check_hash=True))
        except OSError as error:
            raise MissingError(
                f"The ImageNet weights of ResNet50 cannot be downloaded ({error}).\n"
                "Fetch them by other means and give their file, or train from random weights."
            ) from None
