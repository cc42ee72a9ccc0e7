"""Memory of the cascade: bounded by its option, and the same after many pictures as after few."""

import gc
import tracemalloc

import numpy as np

from slimface.deploy.cascade import Cascade
from slimface.model import mtcnn
from tests.deploy.test_cascade import Everywhere, noise


def peak_mb(proposals: int, picture) -> float:
    """Most megabytes held in arrays while every cell of a picture is said to be a face."""
    spec = mtcnn.facenet().model_copy(update={"proposals": proposals, "min_face_px": 24.0})
    cascade = Cascade(spec, Everywhere(spec).nets, batch=32)
    tracemalloc.start()
    try:
        found = cascade.detect(picture)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < len(found) <= proposals
    return peak / 1e6


def test_fewer_proposals_need_less_memory_and_a_larger_picture_little_more():
    small, large = noise(300, 400), noise(600, 800)
    assert peak_mb(50, large) < peak_mb(4000, large)
    # Four times the pixels: the sums over the picture grow with them, the boxes do not.
    sums_mb = 12 * large.size / 3 / 1e6
    assert peak_mb(50, large) - peak_mb(50, small) < 4 * sums_mb


def test_nothing_is_kept_from_picture_to_picture():
    spec = mtcnn.facenet().model_copy(update={"proposals": 20, "min_face_px": 24.0})
    cascade = Cascade(spec, Everywhere(spec).nets, batch=32)
    cascade.networks.pnet.__self__.calls = _Forgetful()
    marks = []
    tracemalloc.start()
    try:
        for i in range(40):
            cascade.detect(noise(60 + i % 9, 70 + i % 7))
            if i in (9, 39):
                gc.collect()
                marks.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert marks[1] - marks[0] < 50_000


class _Forgetful(list):
    def append(self, _: object) -> None:
        """Keep nothing: what is measured is the cascade."""


def test_arrays_are_traced_at_all():
    tracemalloc.start()
    kept = np.ones(10**6)
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert traced >= kept.nbytes
