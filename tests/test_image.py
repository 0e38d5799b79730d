"""Images: whatever a file holds, upright 8-bit pixels or one clear refusal."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vwkit
from vwkit.image import Image, open_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GRAY = RGB[:, :, 0].copy()


def save(pixels, path: Path, **options) -> Path:
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(path, **options)
    return path


class TestSources:
    def test_a_path_text_pil_an_array_and_itself(self, tmp_path):
        path = save(RGB, tmp_path / "a.png")
        for source in (path, str(path), PIL.Image.open(path), PIL.Image.fromarray(RGB), RGB):
            image = open_image(source)
            assert np.array_equal(image.rgb, RGB)
            assert image.size == (7, 5)
            assert image.alpha is None
            assert open_image(image) is image
        assert open_image(path).source == str(path)

    @pytest.mark.parametrize("wrong", [None, 3, b"abc", [RGB], object()])
    def test_anything_else(self, wrong):
        with pytest.raises(vwkit.ImageError, match=r"path, a PIL image or an array.*got"):
            open_image(wrong)

    def test_a_file_in_memory(self, tmp_path):
        path = tmp_path / "x.png"
        PIL.Image.fromarray(RGB).save(path)
        assert (open_image(io.BytesIO(path.read_bytes())).rgb == RGB).all()
        with pytest.raises(vwkit.ImageError, match="image: not an image"):
            open_image(io.BytesIO(b"<svg/>"))
        with pytest.raises(vwkit.ImageError, match="more than 3; refused"):
            open_image(io.BytesIO(path.read_bytes()), max_pixels=3)

    def test_enough_pixels(self, tmp_path):
        """A JPEG is decoded small, but never smaller than asked for; others stay as they are."""
        picture = PIL.Image.new("RGB", (640, 320), (90, 120, 30))
        for suffix, expected in ((".jpg", (160, 80)), (".png", (640, 320))):
            picture.save(tmp_path / f"x{suffix}")
            assert open_image(tmp_path / f"x{suffix}", enough=80).size == expected
            assert open_image(tmp_path / f"x{suffix}", enough=1000).size == (640, 320)
        # The limit is that of the file, not of what would be decoded.
        with pytest.raises(vwkit.ImageError, match="more than 9,999; refused"):
            open_image(tmp_path / "x.jpg", enough=8, max_pixels=9999)

    def test_an_array_that_fits_is_not_copied(self):
        assert np.shares_memory(open_image(RGB).rgb, RGB)

    @pytest.mark.parametrize(
        "shape", [(3,), (2, 3, 2), (2, 3, 5), (0, 3), (3, 0, 3), (2, 3, 4, 1), ()]
    )
    def test_arrays_that_are_no_images(self, shape):
        with pytest.raises(vwkit.ImageError, match=r"\(h, w\), \(h, w, 3\) or \(h, w, 4\); got"):
            open_image(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize(
        "dtype", ["float32", "int64", "int16", "uint32", "complex64", "object"]
    )
    def test_numbers_that_are_no_pixels(self, dtype):
        with pytest.raises(vwkit.ImageError, match="uint8 or uint16; got"):
            open_image(np.zeros((2, 2), dtype))


class TestColours:
    def test_gray(self):
        for source in (GRAY, GRAY[:, :, None]):
            image = open_image(source)
            assert np.array_equal(image.gray, GRAY)
            assert np.array_equal(image.rgb, np.dstack([GRAY] * 3))

    def test_luma_is_what_pillow_makes(self):
        expected = np.asarray(PIL.Image.fromarray(RGB).convert("L"))
        assert np.array_equal(open_image(RGB).gray, expected)

    def test_gray_colours_keep_their_value(self):
        every = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert np.array_equal(open_image(np.dstack([every] * 3)).gray, every)

    def test_alpha_is_shown_on_white(self):
        rgba = np.dstack([RGB, np.full((5, 7), 255, np.uint8)])
        rgba[0, 0] = (0, 0, 0, 0)
        rgba[0, 1] = (0, 0, 0, 128)
        image = open_image(rgba)
        assert image.rgb[0, 0].tolist() == [255, 255, 255]
        assert image.rgb[0, 1].tolist() == [127, 127, 127]
        assert np.array_equal(image.rgb[1:], RGB[1:])
        assert np.array_equal(image.alpha, rgba[:, :, 3])
        assert np.array_equal(image.rgba, rgba)
        assert image.gray[0, 0] == 255
        assert open_image(RGB).rgba[:, :, 3].min() == 255

    @pytest.mark.parametrize(
        "mode",
        [
            "1",
            "L",
            "LA",
            "P",
            "RGB",
            "RGBA",
            "CMYK",
            "YCbCr",
            "HSV",
            "I;16",
            "I",
            "PA",
            "RGBa",
            "RGBX",
        ],
    )
    def test_any_mode_of_pillow(self, mode):
        if mode in ("PA", "RGBa"):
            image = PIL.Image.fromarray(np.dstack([RGB, GRAY])).convert("RGBA")
            image = image.convert("RGBa") if mode == "RGBa" else PIL.Image.new("PA", (7, 5))
        elif mode in ("I;16", "I"):
            image = PIL.Image.fromarray(GRAY.astype(np.uint16) * 257).convert(mode)
        else:
            image = PIL.Image.fromarray(RGB).convert(mode)
        found = open_image(image)
        assert found.rgb.shape == (5, 7, 3)
        assert found.rgb.dtype == found.gray.dtype == np.uint8
        if mode in ("I;16", "I"):
            assert np.array_equal(found.gray, GRAY)
        if mode == "RGB":
            assert np.array_equal(found.rgb, RGB)

    def test_a_mode_that_cannot_be_shown(self):
        with pytest.raises(vwkit.ImageError, match="float32"):
            open_image(PIL.Image.new("F", (2, 2)))
        with pytest.raises(vwkit.ImageError, match="int32"):
            open_image(PIL.Image.new("I", (2, 2), 70_000))

    @pytest.mark.parametrize("order", ["<u2", ">u2"])
    def test_16_bit_arrays(self, order):
        deep = np.array([[0, 128, 129, 257, 65535, 32768]], order)
        assert open_image(deep).gray.tolist() == [[0, 0, 1, 1, 255, 128]]

    @pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
    def test_16_bit_files(self, name, tmp_path):
        path = save(PIL.Image.fromarray(GRAY.astype(np.uint16) * 257), tmp_path / name)
        assert np.array_equal(open_image(path).gray, GRAY)

    def test_16_bit_tiff_of_the_other_byte_order(self, tmp_path):
        deep = (GRAY.astype(">u2") * 257).astype(">u2")
        entries = [(256, 3, 7), (257, 3, 5), (258, 3, 16), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
        entries += [(273, 4, 8 + 2 + 12 * 9 + 4), (278, 3, 5), (279, 4, deep.nbytes)]
        body = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 9)
        for tag, kind, value in sorted(entries):
            packed = struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
            body += struct.pack(">HHI", tag, kind, 1) + packed
        (tmp_path / "a.tif").write_bytes(body + b"\0\0\0\0" + deep.tobytes())
        assert np.array_equal(open_image(tmp_path / "a.tif").gray, GRAY)

    def test_palettes_with_and_without_transparency(self, tmp_path):
        indexed = PIL.Image.fromarray(RGB).quantize(8)
        shown = np.asarray(indexed.convert("RGB"))
        path = save(indexed, tmp_path / "a.png")
        assert np.array_equal(open_image(path).rgb, shown)
        path = save(indexed, tmp_path / "b.png", transparency=bytes([0, 128, 255, 255, 9, 9, 9, 9]))
        image = open_image(path)
        assert image.alpha is not None
        assert (image.rgb[image.alpha == 0] == 255).all()
        path = save(indexed, tmp_path / "c.gif", transparency=3)
        assert open_image(path).alpha is not None

    def test_gray_with_a_transparent_value(self, tmp_path):
        path = save(GRAY, tmp_path / "a.png", transparency=int(GRAY[2, 2]))
        image = open_image(path)
        assert image.alpha[2, 2] == 0
        assert image.gray[2, 2] == 255

    @pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "webp", "tif"])
    def test_lossless_formats(self, suffix, tmp_path):
        path = save(
            RGB, tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {})
        )
        assert np.array_equal(open_image(path).rgb, RGB)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 9, 4), (9, 1)])
    def test_tiny_images(self, shape, tmp_path):
        pixels = np.full(shape, 200, np.uint8)
        for source in (pixels, save(pixels, tmp_path / "a.png")):
            image = open_image(source)
            assert image.size == (shape[1], shape[0])
            assert image.gray.shape == shape[:2]


class TestOrientation:
    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda a: a),
            (2, np.fliplr),
            (3, lambda a: np.rot90(a, 2)),
            (4, np.flipud),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: np.rot90(a, -1)),
            (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
            (8, np.rot90),
        ],
    )
    def test_all_eight(self, orientation, upright, tmp_path):
        image = PIL.Image.fromarray(RGB)
        image.getexif()[0x0112] = orientation
        path = save(image, tmp_path / "a.png", exif=image.getexif())
        assert np.array_equal(open_image(path).rgb, upright(RGB))
        assert np.array_equal(open_image(PIL.Image.open(path)).rgb, upright(RGB))

    @pytest.mark.parametrize(
        "exif",
        [b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"Exif\0\0nonsense", b"Exif\0\0", b"\0" * 40],
    )
    def test_damaged_exif_costs_only_the_turning(self, exif, tmp_path):
        path = save(RGB, tmp_path / "a.jpg", exif=exif, quality=95)
        assert open_image(path).size == (7, 5)


class TestUntrusted:
    def test_no_file_and_no_image(self, tmp_path):
        with pytest.raises(vwkit.ImageError, match=r"nowhere\.png: no such file"):
            open_image(tmp_path / "nowhere.png")
        with pytest.raises(vwkit.ImageError):
            open_image(tmp_path)
        with pytest.raises(vwkit.ImageError):
            open_image("a\0b.png")
        for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
            (tmp_path / "a.png").write_bytes(content)
            with pytest.raises(vwkit.ImageError, match=r"a\.png"):
                open_image(tmp_path / "a.png")

    def test_postscript_is_never_run(self, tmp_path):
        path = save(RGB, tmp_path / "a.eps")
        with pytest.raises(vwkit.ImageError, match="not an image in a format that is read here"):
            open_image(path)

    def test_the_content_counts_not_the_name(self, tmp_path):
        save(RGB, tmp_path / "a.png").rename(tmp_path / "a.jpg")
        assert np.array_equal(open_image(tmp_path / "a.jpg").rgb, RGB)

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "bmp", "ppm"])
    def test_truncated_anywhere(self, suffix, tmp_path):
        rows = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
        path = save(rows, tmp_path / f"a.{suffix}")
        whole = path.read_bytes()
        refused = 0
        for size in range(0, len(whole), max(1, len(whole) // 25)):
            path.write_bytes(whole[:size])
            try:
                assert open_image(path).size == (40, 40)
            except vwkit.ImageError as error:
                assert path.name in str(error)
                assert "\n" not in str(error)
                refused += 1
        assert refused >= 20

    def test_a_truncated_pil_image(self, tmp_path):
        whole = save(RGB, tmp_path / "a.png").read_bytes()
        lazy = PIL.Image.open(io.BytesIO(whole[: len(whole) // 2]))
        with pytest.raises(vwkit.ImageError, match="image: cannot be decoded"):
            open_image(lazy)

    def test_a_bomb_is_refused_before_it_is_decoded(self, tmp_path):
        def chunk(kind, body):
            return (
                struct.pack(">I", len(body))
                + kind
                + body
                + struct.pack(">I", zlib.crc32(kind + body))
            )

        for side in (17_000, 60_000, 2**31 - 1):
            head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
            data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
            (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
            with pytest.raises(vwkit.ImageError, match=r"bomb\.png: .*(pixels|decoded)"):
                open_image(tmp_path / "bomb.png")
        with pytest.raises(vwkit.ImageError, match="7 × 5 pixels, more than 20"):
            open_image(PIL.Image.fromarray(RGB), max_pixels=20)
        path = save(RGB, tmp_path / "a.png")
        with pytest.raises(vwkit.ImageError, match=r"a\.png: 7 × 5 pixels, more than 34"):
            open_image(path, max_pixels=34)
        assert open_image(path, max_pixels=35).size == (7, 5)

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        suffix=st.sampled_from(["png", "jpg", "tif", "gif", "webp", "bmp"]),
        seed=st.integers(0, 2**32),
        flips=st.integers(1, 30),
    )
    def test_damaged_bytes_give_pixels_or_one_error(self, suffix, seed, flips, tmp_path):
        rng = np.random.default_rng(seed)
        target = io.BytesIO()
        PIL.Image.fromarray(RGB).save(target, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
        content = np.frombuffer(target.getvalue(), np.uint8).copy()
        content[rng.integers(0, len(content), flips)] = rng.integers(0, 256, flips)
        path = tmp_path / "a"
        path.write_bytes(content.tobytes())
        try:
            image = open_image(path, max_pixels=1 << 20)
        except vwkit.ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.rgb.shape == (image.size[1], image.size[0], 3)

    def test_threads_leave_the_warning_filters_as_they_were(self, tmp_path):
        path = save(RGB, tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
        before = list(warnings.filters)

        def work():
            for _ in range(60):
                open_image(path)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == before


def test_an_image_shows_its_size():
    assert Image(GRAY, "x").size == (7, 5)
