"""The WIDER FACE evaluation as plain loops: slow, and simple enough to trust.

The oracle of `test_average_precision.py` and the opponent in `benchmarks/evaluator.py`. Written
from the description of the procedure, not from anybody's code.
"""


def average_precision(detections, truth, counting, thresholds=1000):
    """AP of one subset.

    Args:
        detections: For each picture, a list of ((x1, y1, x2, y2), score).
        truth: For each picture, a list of (x1, y1, x2, y2).
        counting: For each picture, a list of whether each face counts.
        thresholds: Their number.
    """
    stretched = stretch(detections)
    kept_total, found_total = [0] * thresholds, [0] * thresholds
    faces_total = sum(sum(flags) for flags in counting)
    for found_boxes, faces, flags in zip(stretched, truth, counting, strict=True):
        if not faces or not found_boxes:
            continue
        kept, found = walk(found_boxes, faces, flags)
        scores = [score for _, score in found_boxes]
        for i in range(thresholds):
            threshold = 1 - (i + 1) / thresholds
            last = max((k for k, score in enumerate(scores) if score >= threshold), default=-1)
            if last >= 0:
                kept_total[i] += sum(kept[: last + 1])
                found_total[i] += found[last]
    precision = [f / k if k else 0.0 for f, k in zip(found_total, kept_total, strict=True)]
    recall = [f / faces_total for f in found_total]
    return area(precision, recall)


def stretch(detections):
    """Scores from 0 to 1 over the whole data set."""
    scores = [score for boxes in detections for _, score in boxes]
    if not scores:
        return detections
    low, high = min(scores), max(scores)
    width = high - low or 1
    return [[(box, (score - low) / width) for box, score in boxes] for boxes in detections]


def walk(found_boxes, faces, flags):
    """For each detection: whether it is kept, and the number of faces found up to it."""
    taken = [False] * len(faces)
    kept, found = [], []
    for box, _ in found_boxes:
        overlaps = [overlap(box, face) for face in faces]
        best = overlaps.index(max(overlaps))
        keep = True
        if overlaps[best] >= 0.5:
            if flags[best]:
                taken[best] = True
            else:
                keep = False
        kept.append(keep)
        found.append(sum(taken))
    return kept, found


def overlap(first, second):
    """Intersection over union, corners inclusive."""
    across = min(first[2], second[2]) - max(first[0], second[0]) + 1
    down = min(first[3], second[3]) - max(first[1], second[1]) + 1
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return shared / (sum(areas) - shared)


def area(precision, recall):
    """Area under the monotone envelope (PASCAL VOC 2010 and later)."""
    recall = [0.0, *recall, 1.0]
    precision = [0.0, *precision, 0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    return sum(
        (recall[i + 1] - recall[i]) * precision[i + 1]
        for i in range(len(recall) - 1)
        if recall[i + 1] != recall[i]
    )
