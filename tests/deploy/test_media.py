import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slimface.deploy.container import read_header
from slimface.deploy.media import expand, read_picture, sources, upright_size
from slimface.errors import DataError, MissingError, UsageError

HEIGHT, WIDTH = 60, 80


def photo(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    blocks = np.random.default_rng(0).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha() -> Image.Image:
    picture = photo().convert("RGBA")
    picture.putalpha(photo().convert("L"))
    return picture


KINDS = {
    "jpeg": encoded(photo(), "JPEG"),
    "progressive jpeg": encoded(photo(), "JPEG", progressive=True),
    "grey jpeg": encoded(photo().convert("L"), "JPEG"),
    "cmyk jpeg": encoded(photo().convert("CMYK"), "JPEG"),
    "jpeg with a comment and thumbnail": encoded(
        photo(), "JPEG", comment=b"\xff\xd9 not the end", exif=b"Exif\0\0" + b"\xff\xd8\xff\xd9"
    ),
    "png": encoded(photo(), "PNG"),
    "grey png": encoded(photo().convert("L"), "PNG"),
    "one bit png": encoded(photo().convert("1"), "PNG"),
    "palette png": encoded(photo().quantize(16), "PNG"),
    "palette png, one colour clear": encoded(photo().quantize(16), "PNG", transparency=3),
    "grey png with alpha": encoded(photo().convert("LA"), "PNG"),
    "png with alpha": encoded(with_alpha(), "PNG"),
    "animated png": encoded(photo(), "PNG", save_all=True, append_images=[photo()]),
    "webp": encoded(photo(), "WEBP", quality=80),
    "lossless webp": encoded(photo(), "WEBP", lossless=True),
    "webp with alpha": encoded(with_alpha(), "WEBP", lossless=True, exact=True),
    "animated webp": encoded(
        photo(), "WEBP", lossless=True, save_all=True, append_images=[photo().rotate(180)]
    ),
    "bmp": encoded(photo(), "BMP"),
    "palette bmp": encoded(photo().quantize(16), "BMP"),
    "one bit bmp": encoded(photo().convert("1"), "BMP"),
    "bmp with alpha": encoded(with_alpha(), "BMP"),
}


def as_opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_read_as_opencv_reads_it(kind):
    picture = read_picture(KINDS[kind])
    assert picture.dtype == np.uint8
    assert picture.shape == (HEIGHT, WIDTH, 3)
    difference = np.abs(picture.astype(int) - as_opencv(KINDS[kind]))
    # The two libraries round CMYK and the chroma of lossy WebP differently; all else is equal.
    assert difference.max() <= {"webp": 12, "cmyk jpeg": 1}.get(kind, 0)


@pytest.mark.data
def test_real_pictures_are_read_as_opencv_reads_them(wider_root):
    paths = sorted((wider_root / "WIDER_val").rglob("*.jpg"))[:20]
    assert len(paths) == 20
    for path in paths:
        np.testing.assert_array_equal(read_picture(path), as_opencv(path.read_bytes()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_gives_the_size_without_decoding(kind):
    header = read_header(KINDS[kind], where="x")
    assert (header.height, header.width, header.complete) == (HEIGHT, WIDTH, True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(photo(), kind, exif=exif, **lossless)
    np.testing.assert_array_equal(read_picture(data), as_opencv(data))
    stored = read_picture(encoded(photo(), kind, **lossless))
    np.testing.assert_array_equal(read_picture(data, upright=False), stored)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_data_that_make_no_sense_turn_nothing():
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40):
        data = encoded(photo(), "JPEG", exif=exif)
        np.testing.assert_array_equal(read_picture(data), as_opencv(data))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_become_eight(channels):
    deep = np.random.default_rng(0).integers(0, 65536, size=(9, 7, channels)).astype(np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    expected = np.broadcast_to((deep >> 8)[..., ::-1], (9, 7, 3))
    np.testing.assert_array_equal(read_picture(data), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_picture_cut_off_anywhere_is_refused(kind, keep):
    data = KINDS[kind]
    with pytest.raises(DataError, match=r"cut off|damaged"):
        read_picture(data[: max(16, int(len(data) * keep))])


@pytest.mark.parametrize("cut", [1, 2, 100, 50_000])
def test_a_large_jpeg_without_its_end_is_refused(cut):
    noise = np.random.default_rng(0).integers(0, 256, size=(400, 600, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", quality=95)
    with pytest.raises(DataError, match="JPEG is cut off"):
        read_picture(data[:-cut])


def test_bytes_after_the_end_do_no_harm():
    expected = read_picture(KINDS["jpeg"])
    np.testing.assert_array_equal(read_picture(KINDS["jpeg"] + b"\0" * 99), expected)


def test_a_damaged_png_is_refused():
    data = bytearray(KINDS["png"])
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="PNG is damaged"):
        read_picture(bytes(data))


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def test_a_picture_of_20000_by_20000_is_refused_before_decoding():
    with pytest.raises(DataError, match=r"20000 x 20000 pixels are more than the 100,000,000"):
        read_picture(huge_png(20_000))


def test_the_limit_of_pixels_can_be_moved():
    data = KINDS["png"]
    assert read_picture(data, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match="more than the 4,799"):
        read_picture(data, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_of_one_pixel_is_a_picture(kind):
    assert read_picture(encoded(photo(1, 1), kind)).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<svg/>", b"GIF89a" + bytes(90), b"%PDF-1.7", b"\xff\xd8\xff", b"BM"],
)
def test_what_is_no_picture_is_named(tmp_path, content):
    disguised = tmp_path / "holiday.jpg"
    disguised.write_bytes(content)
    with pytest.raises(DataError, match=r"holiday\.jpg: "):
        read_picture(disguised)


def test_a_png_named_jpg_is_read(tmp_path):
    disguised = tmp_path / "png.jpg"
    disguised.write_bytes(KINDS["png"])
    assert read_picture(disguised).shape == (HEIGHT, WIDTH, 3)


@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_a_picture_or_a_data_error(kind, damages):
    data = bytearray(KINDS[kind])
    for place, value in damages:
        data[int(place * (len(data) - 1))] = value
    try:
        picture = read_picture(bytes(data), max_pixels=10**6)
    except DataError:
        return
    assert picture.ndim == 3


def test_a_path_that_leads_nowhere_is_missing(tmp_path):
    with pytest.raises(MissingError, match="there is no file"):
        read_picture(tmp_path / "none.jpg")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        read_picture(tmp_path)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (61, 83), (1, 100), (7, 3), (15, 9)])
def test_a_reduced_picture_has_a_fraction_of_the_size(reduction, size):
    expected = tuple(-(-side // reduction) for side in size)
    for kind in ("JPEG", "PNG"):
        data = encoded(photo(*size), kind)
        assert read_picture(data, reduction=reduction).shape == (*expected, 3)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_jpeg_is_that_of_opencv(reduction):
    mode = getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}")
    expected = cv2.imdecode(np.frombuffer(KINDS["jpeg"], np.uint8), mode)[..., ::-1]
    np.testing.assert_array_equal(read_picture(KINDS["jpeg"], reduction=reduction), expected)


def test_the_upright_size_is_known_for_plain_jpegs_only():
    exif = Image.Exif()
    exif[0x112] = 6
    assert upright_size(KINDS["jpeg"]) == (HEIGHT, WIDTH)
    assert upright_size(encoded(photo(), "JPEG", exif=exif)) is None
    assert upright_size(KINDS["png"]) is None


@pytest.fixture
def album(tmp_path) -> Path:
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(KINDS["png"])
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_folders_are_searched_in_the_order_of_their_names(album):
    frames = list(sources([album]))
    assert [frame.name for frame in frames] == ["a.PNG", "b.jpg", "deep/er/c.webp"]
    assert all(frame.read_ms > 0 and frame.video is None for frame in frames)


def test_patterns_and_files_mix_and_nothing_comes_twice(album):
    things = expand([album / "b.jpg", str(album / "**" / "*.webp"), album / "b.jpg"])
    assert [thing.name for thing in things] == ["b.jpg", "c.webp"]


def test_equal_names_are_told_apart_by_their_folders(album):
    (album / "deep" / "b.jpg").write_bytes(KINDS["png"])
    things = expand([album / "b.jpg", album / "deep" / "b.jpg"])
    assert [thing.name for thing in things] == ["b.jpg", "deep/b.jpg"]


@pytest.mark.parametrize("asked", ["nowhere", "*.tiff", "empty"])
def test_inputs_without_a_picture_are_an_error(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(MissingError):
        expand([asked])


def test_one_broken_picture_stops_or_is_reported(album):
    (album / "a.PNG").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"a\.PNG"):
        list(sources([album]))
    told = []
    frames = list(sources([album], on_error=lambda name, error: told.append((name, error))))
    assert [frame.name for frame in frames] == ["b.jpg", "deep/er/c.webp"]
    assert [name for name, _ in told] == ["a.PNG"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_picture_is_named(album):
    (album / "b.jpg").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        read_picture(album / "b.jpg")


def make_video(path: Path, count: int = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for i in range(count):
        frame = np.zeros((48, 64, 3), dtype=np.uint8)
        frame[:, :, 2] = 250
        frame[:, : 3 * i] = 0
        writer.write(frame)
    writer.release()
    return path


def test_a_video_gives_its_frames_in_rgb(tmp_path):
    frames = list(sources([make_video(tmp_path / "clip.avi")]))
    assert [frame.name for frame in frames][:2] == ["clip.avi/000000", "clip.avi/000001"]
    assert len(frames) == 20
    assert frames[0].video is not None
    assert frames[0].video.frames_per_second == 10
    assert frames[0].picture[20, 20, 0] > 200
    assert frames[0].picture[20, 20, 2] < 60


def test_a_video_stops_after_max_frames(tmp_path):
    assert len(list(sources([make_video(tmp_path / "clip.avi")], max_frames=3))) == 3


def test_a_video_that_ends_early_gives_what_it_has_and_an_error(tmp_path):
    path = make_video(tmp_path / "clip.avi")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames = []
    with pytest.raises(DataError, match=r"ends after \d+ of the 20 frames"):
        for frame in sources([path]):
            frames.append(frame)
    assert 1 <= len(frames) < 20


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video" * 99)
    with pytest.raises(DataError, match=r"clip\.mp4: the video cannot be opened"):
        list(sources([path]))


def test_frames_above_the_limit_are_refused(tmp_path):
    with pytest.raises(DataError, match="64 x 48 pixels are more than"):
        list(sources([make_video(tmp_path / "clip.avi")], max_pixels=1000))


def test_a_camera_that_is_not_there_is_missing():
    with pytest.raises(MissingError, match="camera 93 cannot be opened"):
        list(sources(["93"]))
