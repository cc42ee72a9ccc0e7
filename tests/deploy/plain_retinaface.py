"""The published rules of RetinaFace-MobileNet0.25, anchor by anchor: slow, and hard to get wrong.

Written from the description of biubug6/Pytorch_Retinaface alone; shares nothing with slimface.
"""

import math

import cv2
import numpy as np
import torch
from torch.nn import functional

SIZES, STRIDES, VARIANCES = ((16, 32), (64, 128), (256, 512)), (8, 16, 32), (0.1, 0.2)


def published_net(file):
    """The network as a function of the published tensors: probabilities, offsets, points."""
    w = torch.load(file, weights_only=True, map_location="cpu")
    w = {key.removeprefix("module."): value for key, value in w.items()}

    def conv_norm(x, at, norm, *, stride=1, slope=None, depthwise=False):
        kernel = w[f"{at}.weight"]
        groups = kernel.shape[0] if depthwise else 1
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        x = functional.batch_norm(x, *(w[f"{norm}.{name}"] for name in names))
        return x if slope is None else functional.leaky_relu(x, slope)

    def plain(x, at, slope=0.1, stride=1):
        return conv_norm(x, f"{at}.0", f"{at}.1", stride=stride, slope=slope)

    def separable(x, at, stride):
        x = conv_norm(x, f"{at}.0", f"{at}.1", stride=stride, slope=0.1, depthwise=True)
        return conv_norm(x, f"{at}.3", f"{at}.4", slope=0.1)

    def body(x):
        x = plain(x, "body.stage1.0", stride=2)
        maps = []
        for stage, strides in ((1, (1, 2, 1, 2, 1)), (2, (2, 1, 1, 1, 1, 1)), (3, (2, 1))):
            for i, stride in enumerate(strides):
                x = separable(x, f"body.stage{stage}.{i + (stage == 1)}", stride)
            maps.append(x)
        return maps

    def pyramid(maps):
        one, two, three = (plain(x, f"fpn.output{i}") for i, x in enumerate(maps, start=1))
        two = plain(two + functional.interpolate(three, size=two.shape[2:]), "fpn.merge2")
        one = plain(one + functional.interpolate(two, size=one.shape[2:]), "fpn.merge1")
        return one, two, three

    def context(x, at):
        near = plain(x, f"{at}.conv3X3", slope=None)
        middle = plain(x, f"{at}.conv5X5_1")
        five = plain(middle, f"{at}.conv5X5_2", slope=None)
        seven = plain(plain(middle, f"{at}.conv7X7_2"), f"{at}.conv7x7_3", slope=None)
        return functional.relu(torch.cat([near, five, seven], dim=1))

    def head(maps, name, values):
        rows = []
        for i, x in enumerate(maps):
            x = functional.conv2d(x, w[f"{name}.{i}.conv1x1.weight"], w[f"{name}.{i}.conv1x1.bias"])
            rows.append(x.permute(0, 2, 3, 1).reshape(-1, values))
        return torch.cat(rows)

    def network(x):
        maps = [context(level, f"ssh{i}") for i, level in enumerate(pyramid(body(x)), start=1)]
        scores = head(maps, "ClassHead", 2).softmax(dim=1)[:, 1]
        return scores, head(maps, "BboxHead", 4), head(maps, "LandmarkHead", 10)

    return network


def anchors_of(height, width):
    """Centre x, centre y, width, height as fractions of the picture, one by one."""
    found = []
    for stride, sizes in zip(STRIDES, SIZES, strict=True):
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                for size in sizes:
                    x, y = (column + 0.5) * stride / width, (row + 0.5) * stride / height
                    found.append((x, y, size / width, size / height))
    return np.array(found)


def suppressed(boxes, scores, most):
    """Greedy suppression; corners are inclusive, so sides are one longer."""
    order, kept = scores.argsort(kind="stable")[::-1], []
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.minimum(boxes[best, 2], boxes[rest, 2]) - np.maximum(
            boxes[best, 0], boxes[rest, 0]
        )
        height = np.minimum(boxes[best, 3], boxes[rest, 3]) - np.maximum(
            boxes[best, 1], boxes[rest, 1]
        )
        shared = np.maximum(width + 1, 0) * np.maximum(height + 1, 0)
        order = rest[shared / (area[best] + area[rest] - shared) <= most]
    return np.array(kept, dtype=int)


def detect(path, network, floor=0.02, most=0.4):
    """Corners ``(n, 4)``, scores and landmarks ``(n, 5, 2)`` in a picture at its own size."""
    picture = cv2.imread(str(path)).astype(np.float32)
    height, width = picture.shape[:2]
    picture -= (104, 117, 123)
    with torch.no_grad():
        scores, offsets, points = network(torch.from_numpy(picture.transpose(2, 0, 1))[None])
    scores, offsets, points = scores.numpy(), offsets.numpy(), points.numpy()
    at = np.flatnonzero(scores > floor)
    anchors = anchors_of(height, width)[at]
    scores, offsets, points = scores[at], offsets[at], points[at].reshape(-1, 5, 2)
    centres = anchors[:, :2] + offsets[:, :2] * VARIANCES[0] * anchors[:, 2:]
    sides = anchors[:, 2:] * np.exp(offsets[:, 2:] * VARIANCES[1])
    boxes = np.hstack([centres - sides / 2, centres + sides / 2]) * np.tile([width, height], 2)
    points = anchors[:, None, :2] + points * VARIANCES[0] * anchors[:, None, 2:]
    kept = suppressed(boxes, scores, most)
    return boxes[kept], scores[kept], (points * [width, height])[kept]
