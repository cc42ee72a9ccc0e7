"""The published rules of MTCNN, box by box and crop by crop: slow, and hard to get wrong.

Written from the description of facenet-pytorch 2.6.0 alone; shares nothing with slimface.
"""

import math

import numpy as np
import torch
from torch.nn import functional


def published_nets(folder):
    """The three networks as functions of the published tensors, as facenet-pytorch has them."""
    pnet, rnet, onet = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("pnet", "rnet", "onet")
    )

    def block(w, i, x):
        x = functional.conv2d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"])
        return functional.prelu(x, w[f"prelu{i}.weight"])

    def pool(x, size):
        return functional.max_pool2d(x, size, 2, ceil_mode=True)

    def linear(w, name, x):
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def first(x):
        x = block(pnet, 3, block(pnet, 2, pool(block(pnet, 1, x), 2)))
        scores, offsets = (
            functional.conv2d(x, pnet[f"conv4_{k}.weight"], pnet[f"conv4_{k}.bias"]) for k in (1, 2)
        )
        return scores.softmax(1)[0, 1], offsets[0], None

    def second(x):
        x = block(rnet, 3, pool(block(rnet, 2, pool(block(rnet, 1, x), 3)), 3))
        x = linear(rnet, "dense4", x.permute(0, 3, 2, 1).flatten(1))
        x = functional.prelu(x, rnet["prelu4.weight"])
        return linear(rnet, "dense5_1", x).softmax(1)[0, 1], linear(rnet, "dense5_2", x)[0], None

    def third(x):
        x = pool(block(onet, 2, pool(block(onet, 1, x), 3)), 3)
        x = block(onet, 4, pool(block(onet, 3, x), 2))
        x = linear(onet, "dense5", x.permute(0, 3, 2, 1).flatten(1))
        x = functional.prelu(x, onet["prelu5.weight"])
        scores, offsets, points = (linear(onet, f"dense6_{k}", x) for k in (1, 2, 3))
        return scores.softmax(1)[0, 1], offsets[0], points[0]

    return first, second, third


@torch.inference_mode()
def detect(picture, nets, *, min_face=20, factor=0.709, floors=(0.6, 0.7, 0.7)):
    """Return rows of x1, y1, x2, y2, score, and their landmarks (n, 5, 2), best first."""
    first, second, third = nets
    image = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    height, width = picture.shape[:2]
    proposals = []
    scale = 12 / min_face
    while min(height, width) * scale >= 12:
        level = sampled(image, int(height * scale + 1), int(width * scale + 1))
        scores, offsets, _ = first(level)
        found = []
        for y, x in np.argwhere(scores.numpy() >= np.float32(floors[0])):
            corners = [2 * x + 1, 2 * y + 1, 2 * x + 12, 2 * y + 12]
            box = [math.floor(np.float32(side) / np.float32(scale)) for side in corners]
            found.append((box, float(scores[y, x]), offsets[:, y, x].tolist(), None))
        proposals += suppressed(found, 0.5)
        scale *= factor
    boxes = [squared(moved(one, 0)) for one in suppressed(proposals, 0.7)]
    boxes = judged(image, boxes, second, 24, floors[1])
    boxes = [squared(moved(one, 1)) for one in suppressed(boxes, 0.7)]
    boxes = judged(image, boxes, third, 48, floors[2])
    faces = []
    for one in boxes:
        (x1, y1, x2, y2), _, _, points = one
        marks = [
            (x1 + (x2 - x1 + 1) * points[k] - 1, y1 + (y2 - y1 + 1) * points[5 + k] - 1)
            for k in range(5)
        ]
        box, score, offsets, _ = moved(one, 1)
        faces.append((box, score, offsets, marks))
    faces = suppressed(faces, 0.7, of_the_smaller=True)
    rows = np.array([[*box, score] for box, score, _, _ in faces]).reshape(-1, 5)
    return rows, np.array([points for *_, points in faces]).reshape(-1, 5, 2)


def sampled(image, rows, columns):
    means = functional.interpolate(image, size=(rows, columns), mode="area")
    return (means - 127.5) * 0.0078125


def judged(image, boxes, net, side, floor):
    height, width = image.shape[2:]
    passed = []
    for box, *_ in boxes:
        x1, y1, x2, y2 = (int(np.float32(corner)) for corner in box)
        x1, y1, x2, y2 = max(x1, 1), max(y1, 1), min(x2, width), min(y2, height)
        if x2 < x1 or y2 < y1:
            continue
        score, offsets, points = net(sampled(image[:, :, y1 - 1 : y2, x1 - 1 : x2], side, side))
        if score > floor:
            points = None if points is None else points.tolist()
            passed.append((box, float(score), offsets.tolist(), points))
    return passed


def moved(one, pixel):
    (x1, y1, x2, y2), score, offsets, points = one
    w, h = x2 - x1 + pixel, y2 - y1 + pixel
    dx1, dy1, dx2, dy2 = offsets
    return [x1 + dx1 * w, y1 + dy1 * h, x2 + dx2 * w, y2 + dy2 * h], score, offsets, points


def squared(one):
    (x1, y1, x2, y2), *rest = one
    side = max(x2 - x1, y2 - y1)
    left, top = x1 + (x2 - x1) / 2 - side / 2, y1 + (y2 - y1) / 2 - side / 2
    return [left, top, left + side, top + side], *rest


def suppressed(found, limit, *, of_the_smaller=False):
    kept = []
    for one in sorted(found, key=lambda one: -one[1]):
        if all(overlap(one[0], other[0], of_the_smaller) <= limit for other in kept):
            kept.append(one)
    return kept


def overlap(a, b, of_the_smaller):
    pixel = 1 if of_the_smaller else 0
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]) + pixel)
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]) + pixel)
    first, second = ((c[2] - c[0] + pixel) * (c[3] - c[1] + pixel) for c in (a, b))
    return w * h / (min(first, second) if of_the_smaller else first + second - w * h)
