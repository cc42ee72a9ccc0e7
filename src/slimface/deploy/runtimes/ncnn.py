"""ncnn: ``.param`` with its weights in ``.bin``."""

import os
from collections.abc import Mapping

import numpy as np

from slimface.core.faces import Floats
from slimface.deploy.pipeline import Answer
from slimface.deploy.runtimes.description import does_not_run, not_installed, unreadable
from slimface.deploy.runtimes.sidecar import SidecarNetwork


class NcnnNetwork(SidecarNetwork):
    """A network run by ncnn on the processor, picture by picture.

    Raises:
        MissingError: A file of the model is not there, or ncnn is not installed.
        CheckpointError: A file is damaged, or was not exported by slimface.
    """

    runtime = "ncnn"

    def _open(self, content: bytes, files: Mapping[str, bytes], threads: int | None) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise not_installed(self.path, "ncnn", "slimface[ncnn]") from error
        self._ncnn = ncnn
        self._net = ncnn.Net()
        options = self._net.opt
        # ncnn would take all cores whatever OpenMP is told, and collapses where they are busy.
        told = int(os.environ.get("OMP_NUM_THREADS", "0").partition(",")[0] or 0)
        options.num_threads = threads or told or ncnn.get_physical_big_cpu_count()
        # Weights stored in half the bits are fine; sums in half the bits lose faces.
        options.use_fp16_storage = options.use_fp16_packed = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        failed = self._net.load_param(str(self.path))
        failed = failed or self._net.load_model(str(self.path.with_suffix(".bin")))
        if failed or ".bin" not in files:
            raise unreadable(self.path, "ncnn", f"error {failed}")

    def __call__(self, images: Floats) -> Answer:
        answers = [self._one(image) for image in images]
        joined = [np.stack(tensors) for tensors in zip(*answers, strict=True)]
        return self.description.answer(self.description.shaped(joined, len(images)))

    def _one(self, image: Floats) -> list[Floats]:
        extractor = self._net.create_extractor()
        # A copy: the Mat is a view, and rows of a Mat are padded to whole vectors.
        extractor.input("in0", self._ncnn.Mat(np.ascontiguousarray(image)).clone())
        tensors = []
        for index in range(len(self.description.names)):
            failed, mat = extractor.extract(f"out{index}")
            if failed:
                raise does_not_run(self.path, (1, *image.shape), f"ncnn returns error {failed}")
            tensors.append(np.array(mat))
        return tensors
