"""Augmented training pictures a second, beside the straightforward way to make them.

    OMP_NUM_THREADS=1 python benchmarks/augment.py ../shared/data/wider

The rival decodes the whole picture, resizes the whole picture to the scale that data-anchor
sampling asks for, tries 50 windows one after the other, pads, and changes colours one by one in
float: the published training code, with OpenCV where it uses Pillow. Both sides run in the same
loader with the same number of workers.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from slimface.core.boxes import overlaps
from slimface.core.faces import Faces
from slimface.data.batches import Batches, _Samples
from slimface.data.pictures import PictureSet
from slimface.data.plan import MEAN_COLOUR
from slimface.data.transforms import S3fdAugment
from slimface.data.widerface import read_widerface
from slimface.deploy.media import Picture, read_picture

SIZES = np.array([16, 32, 64, 128, 256, 512])


class WholePicture:
    """Data-anchor sampling by resizing the whole picture, square crops by trial."""

    def __call__(
        self, picture: Picture, faces: Faces, rng: np.random.Generator, size_px: int
    ) -> tuple[Picture, Faces]:
        picture = recoloured(picture, rng)
        if rng.random() < 0.5:
            picture, boxes = anchor_sample(picture, faces.boxes, rng, size_px)
        else:
            picture, boxes = square_crop(picture, faces.boxes, rng)
        height, width = picture.shape[:2]
        picture = cv2.resize(picture, (size_px, size_px), interpolation=int(rng.integers(5)))
        boxes = boxes * np.array([size_px / width, size_px / height] * 2)
        large = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > 36
        found = Faces.annotated(boxes[large])
        if rng.random() < 0.5:
            return cv2.flip(picture, 1), found.mirrored(size_px)
        return picture, found


def recoloured(picture: Picture, rng: np.random.Generator) -> Picture:
    image = picture.astype(np.float32)
    if rng.random() < 0.5:
        image = np.clip(image * rng.uniform(0.875, 1.125), 0, 255)
    if rng.random() < 0.5:
        image = np.clip((image - image.mean()) * rng.uniform(0.5, 1.5) + image.mean(), 0, 255)
    hsv = cv2.cvtColor(image.astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
    if rng.random() < 0.5:
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.5, 1.5), 0, 255)
    if rng.random() < 0.5:
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(-12, 12)) % 180
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def anchor_sample(
    picture: Picture, boxes: np.ndarray, rng: np.random.Generator, size_px: int
) -> tuple[Picture, np.ndarray]:
    box = boxes[rng.integers(len(boxes))]
    side = np.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1))
    sizes = SIZES[0.8 * size_px >= SIZES]
    nearest = np.abs(sizes - side).argmin()
    target = sizes[rng.integers(min(nearest + 1, len(sizes) - 1) + 1)]
    ratio = target / side * 2 ** rng.uniform(-1, 1)
    height, width = picture.shape[:2]
    ratio = min(ratio, 12000 / np.sqrt(height * width))
    size = (max(1, int(width * ratio)), max(1, int(height * ratio)))
    picture = cv2.resize(picture, size, interpolation=int(rng.integers(5)))
    boxes, box = boxes * ratio, box * ratio
    height, width = picture.shape[:2]
    windows = []
    for _ in range(50):
        if size_px < max(height, width):
            low_x, high_x = sorted((box[2] - size_px, box[0]))
            low_y, high_y = sorted((box[3] - size_px, box[1]))
            x, y = np.floor(rng.uniform(low_x, high_x)), np.floor(rng.uniform(low_y, high_y))
        else:
            x, y = rng.uniform(width - size_px, 0), rng.uniform(height - size_px, 0)
        window = np.array([[x, y, x + size_px, y + size_px]])
        inside = (boxes[:, :2] >= window[0, :2]) & (boxes[:, 2:] <= window[0, 2:])
        if inside.all(axis=1).any() or (overlaps(window, boxes) > 0.7).any():
            windows.append(window[0].astype(int))
    if not windows:
        return picture, boxes
    x, y, _, _ = windows[rng.integers(len(windows))]
    canvas = np.empty((size_px, size_px, 3), np.uint8)
    canvas[:] = MEAN_COLOUR
    shown = picture[max(0, y) : y + size_px, max(0, x) : x + size_px]
    top, left = max(0, -y), max(0, -x)
    canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    boxes = boxes - np.array([x, y, x, y])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return canvas, boxes[((centres > 0) & (centres < size_px)).all(axis=1)]


def square_crop(
    picture: Picture, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[Picture, np.ndarray]:
    height, width = picture.shape[:2]
    windows = []
    for share in (1.0, *rng.uniform(0.3, 1, 4)):
        side = share * min(height, width)
        for _ in range(50):
            x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
            inside = (boxes[:, :2] >= (x, y)) & (boxes[:, 2:] <= (x + side, y + side))
            if inside.all(axis=1).any():
                windows.append((int(x), int(y), int(side)))
                break
    if not windows:
        return picture, boxes
    x, y, side = windows[rng.integers(len(windows))]
    boxes = boxes - np.array([x, y, x, y])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > 0) & (centres < side)).all(axis=1)
    return picture[y : y + side, x : x + side], np.clip(boxes[inside], 0, side)


class _WholeSamples(_Samples):
    """The rival in our loader: whole pictures in, retried as ours are."""

    def sample(self, epoch: int, index: int) -> tuple[Picture, Faces]:
        rng = np.random.default_rng((self.seed, epoch, index))
        while True:
            one = self.pictures[index]
            picture = read_picture(one.path)
            for _ in range(10):
                sample, faces = WholePicture()(picture, one.faces, rng, self.size_px)
                if len(faces):
                    return sample, faces
            index = int(rng.integers(len(self.pictures)))


def made(pictures: PictureSet, size_px: int, workers: int, *, rival: bool) -> Batches:
    batches = Batches(
        pictures, augment=S3fdAugment(), size_px=size_px, batch_size=10, workers=workers
    )
    if rival:
        batches._loader.dataset.__class__ = _WholeSamples
    return batches


def rate(pictures: PictureSet, size_px: int, workers: int, count: int, *, rival: bool) -> float:
    """Pictures a second on the clock over ``count`` pictures, after the workers have started."""
    batches = made(pictures, size_px, workers, rival=rival)
    next(batches.epoch(0, skip=len(batches) - 1))
    start = time.perf_counter()
    done = sum(len(batch) for batch in batches.epoch(1, skip=len(batches) - count // 10))
    seconds = time.perf_counter() - start
    batches.close()
    return done / seconds


def cost_ms(pictures: PictureSet, size_px: int, count: int, *, rival: bool) -> float:
    """Milliseconds of processor time a picture: the same on a busy machine."""
    batches = made(pictures, size_px, 0, rival=rival)
    start = time.process_time()
    done = sum(len(batch) for batch in batches.epoch(1, skip=len(batches) - count // 10))
    return (time.process_time() - start) / done * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder in the layout of WIDER FACE")
    parser.add_argument("--count", type=int, default=1500, help="pictures a measurement")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pictures = read_widerface(options.root, "train").with_faces()
    count = min(options.count, len(pictures))
    few = max(100, count // 5)
    print(f"{count} of {len(pictures)} pictures ({few} for the rival)")
    print(f"{'crop':>6} {'workers':>8} {'slimface':>9} {'whole':>7} {'ratio':>6}")
    for size_px in (320, 640):
        ours = cost_ms(pictures, size_px, count, rival=False)
        whole = cost_ms(pictures, size_px, few, rival=True)
        print(f"{size_px:>6} {'cpu ms':>8} {ours:>9.1f} {whole:>7.1f} {whole / ours:>6.1f}")
        for workers in (1, 2):
            ours = rate(pictures, size_px, workers, count, rival=False)
            whole = rate(pictures, size_px, workers, few, rival=True)
            unit = f"{workers}, 1/s"
            print(f"{size_px:>6} {unit:>8} {ours:>9.0f} {whole:>7.0f} {ours / whole:>6.1f}")


if __name__ == "__main__":
    main()
