"""The page, in a real browser."""

import functools
import http.server
import json
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from slimface.core.bundle import read_bundle
from slimface.deploy.runtimes import open_exported
from slimface.errors import CheckpointError, UsageError
from slimface.export.cascade import write_cascade
from slimface.export.onnx import Onnx
from slimface.export.ort_web import VERSION, copy_runtime
from slimface.export.web import MODEL, NETS, export_web, write_page
from slimface.files import SEAL, beside_folder
from slimface.model.mtcnn import MTCNN


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine; `apt-get install chromium` brings it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path):
    """Serve a folder; give its address."""
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def page_folder(tmp_path, tiny_onnx, ort_web) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    shutil.copy(tiny_onnx, folder / "model.onnx")
    write_page(folder, Onnx(), {"licence": "none"})
    shutil.copytree(ort_web, folder / "vendor")
    return folder


@pytest.fixture
def opened(browser, served):
    """Open a page; give it, and the addresses it asked for."""
    pages = []

    def open_(folder: Path):
        page = browser.new_page(viewport={"width": 390, "height": 844})
        pages.append(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        address = served(folder)
        page.goto(address)
        settle(page)
        return page, [url for url in asked if not url.startswith((address, "blob:", "data:"))]

    yield open_
    for page in pages:
        page.close()


def settle(page) -> None:
    states = "main[data-state=ready], main[data-state=failed]"
    page.wait_for_selector(states, timeout=60_000)


def agrees(page, wanted: list[dict], *, box_px: float, score: float) -> None:
    found = json.loads(page.get_attribute("main", "data-faces"))
    assert len(found) == len(wanted) > 0
    # Scores that are equal but for rounding come in either order.
    for face, golden in zip(sorted(found, key=_corner), sorted(wanted, key=_corner), strict=True):
        np.testing.assert_allclose(face["box"], golden["box"], atol=box_px)
        if "landmarks" in golden:
            np.testing.assert_allclose(face["landmarks"], golden["landmarks"], atol=box_px)
        assert face["score"] == pytest.approx(golden["score"], abs=score)


def test_its_spec_is_that_of_a_bundle(page_folder):
    said = read_bundle((page_folder / "spec.json").read_bytes(), where="spec.json")
    assert (said.name, said.licence, said.files[0].path) == ("tiny", "none", "model.onnx")


def _corner(face: dict) -> list[float]:
    return [round(side, 1) for side in face["box"]]


def test_the_sample_gives_the_golden_faces_and_nothing_is_asked_of_other_places(
    opened, page_folder
):
    page, elsewhere = opened(page_folder)
    golden = json.loads((page_folder / "golden.json").read_text())
    agrees(page, golden["faces"], **golden["tolerance"])
    assert elsewhere == []
    count = len(golden["faces"])
    assert page.inner_text("#status").startswith(f"{count} face")
    assert f"{count} face" in page.get_attribute("#canvas", "aria-label")
    assert float(page.inner_text("#ms-network")) > 0


def test_a_picture_of_ones_own_is_detected(opened, page_folder, tmp_path, tiny_onnx):
    page, _ = opened(page_folder)
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[16:20, 16:20] = picture[16:20, 40:44] = 255
    path = tmp_path / "two.png"
    cv2.imwrite(str(path), picture)
    page.set_input_files("#file", str(path))
    page.wait_for_selector("#status:has-text('two.png')")
    faces = open_exported(tiny_onnx).detect(picture)
    agrees(page, faces.as_rows(), box_px=0.05, score=1e-3)
    assert page.inner_text("#status").startswith("2 faces")


def test_what_is_no_picture_is_said_aloud_and_the_page_goes_on(opened, page_folder, tmp_path):
    page, _ = opened(page_folder)
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    page.set_input_files("#file", str(path))
    page.wait_for_selector("main[data-state=failed]")
    assert "notes.png is no picture" in page.inner_text("[role=alert]")
    page.click("#sample")
    page.wait_for_selector("main[data-state=ready]")
    assert page.inner_text("#error") == ""


def test_every_control_is_reached_by_keyboard_and_has_a_name(opened, page_folder):
    page, _ = opened(page_folder)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"file", "sample", "camera", "score", "longest", "SUMMARY"} <= set(reached)
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input')]
             .filter((control) => !(control.labels?.length || control.textContent.trim()))
             .map((control) => control.id)"""
    )
    assert unnamed == []
    page.focus("#score")
    before = page.inner_text("#score-value")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#score-value") != before


def test_without_a_webcam_the_page_says_what_to_do(opened, page_folder):
    page, _ = opened(page_folder)
    page.click("#camera")
    page.wait_for_selector("main[data-state=failed]")
    assert "choose a picture" in page.inner_text("[role=alert]")


def test_it_fits_a_phone(opened, page_folder):
    page, _ = opened(page_folder)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.is_visible(".drop")
    page.context.new_cdp_session(page).send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    assert not page.is_visible(".drop"), "nothing is dropped with a finger"


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_damaged_folder_is_said(opened, page_folder, damage):
    model = page_folder / "model.onnx"
    if damage == "gone":
        model.unlink()
    else:
        model.write_bytes(model.read_bytes()[:100])
    page, _ = opened(page_folder)
    assert page.get_attribute("main", "data-state") == "failed"
    assert "opy" in page.inner_text("[role=alert]")


@pytest.mark.data
@pytest.mark.parametrize("model", ["eresfd", "mtcnn"])
def test_published_weights_in_the_browser_find_the_golden_faces(
    opened, tmp_path, ort_web, weights_root, monkeypatch, model
):
    from slimface.model import zoo

    monkeypatch.setenv("SLIMFACE_WEIGHTS", str(weights_root))
    folder = tmp_path / "page"
    folder.mkdir()
    detector = zoo.load(model)
    if isinstance(detector, MTCNN):
        place = NETS
        (folder / place).mkdir()
        write_cascade(detector, folder / place, Onnx())
    else:
        place = MODEL
        Onnx().write(detector, folder / place)
    write_page(folder, Onnx(), {}, model=place)
    shutil.copytree(ort_web, folder / "vendor")
    page, elsewhere = opened(folder)
    golden = json.loads((folder / "golden.json").read_text())
    agrees(page, golden["faces"], **golden["tolerance"])
    assert elsewhere == []


def test_another_package_is_no_runtime(tmp_path):
    path = tmp_path / "package.tgz"
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=VERSION):
        copy_runtime(tmp_path / "vendor", path)
    assert not (tmp_path / "vendor").exists()


def test_what_the_page_cannot_run_is_refused_with_a_reason(tmp_path):
    from slimface.model.build import build
    from slimface.model.classifier import classifier
    from slimface.model.zoo import entry

    page = tmp_path / "page"
    with pytest.raises(UsageError, match="many sizes"):
        export_web(build(entry("mtcnn").spec, seed=0), page, Onnx(dynamic=False))
    with pytest.raises(UsageError, match="finds faces"):
        export_web(build(classifier("resnet18", ("a", "b")), seed=0), page, Onnx())
    assert not page.exists()


def test_a_folder_that_was_not_made_here_is_never_replaced(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_text("precious")
    with pytest.raises(UsageError, match="did not make it"), beside_folder(folder):
        pass
    assert (folder / "holiday.jpg").read_text() == "precious"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "page"
    for text in ("one", "two"):
        with beside_folder(folder) as part:
            (part / "a.txt").write_text(text)
    with pytest.raises(RuntimeError), beside_folder(folder) as part:
        (part / "a.txt").write_text("three")
        raise RuntimeError
    assert (folder / "a.txt").read_text() == "two"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page"]
    assert (folder / SEAL).read_text().endswith("  a.txt\n")
