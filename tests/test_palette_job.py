"""The palette job: a spec in, PNG-8 files, the palette, measurements and a page out."""

import base64
import hashlib
import json
import re
import warnings

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.helpers import picture
from vwkit.palettes import Palette, distinct_colours, nearest_colours, psnr
from vwkit.testing import registered


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))


def spec(tmp_path, images, k=16, output=None, **more):
    return {
        "vwkit": 1,
        "images": {"path": str(images)},
        "featurizer": {"use": "pixels", "space": "oklab"},
        "clusterer": {"use": "lloyd", "k": k, "iterations": 30},
        "output": output or {"write": "palette", "path": str(tmp_path / "out")},
        **more,
    }


def run(tmp_path, images, k=16, name="run", **more):
    return vwkit.Pipeline.from_dict(spec(tmp_path, images, k, **more)).run(tmp_path / name)


def opened(path):
    with PIL.Image.open(path) as found:
        assert found.format == "PNG"
        assert found.mode == "P"
        return np.asarray(found.convert("RGBA"))


def measured(tmp_path):
    return json.loads((tmp_path / "out/measures.json").read_text())


class TestOnePicture:
    def test_the_spec_of_the_design(self, tmp_path):
        picture(1, (90, 60)).save(tmp_path / "talos.jpg", quality=95)
        (tmp_path / "talos.yaml").write_text(
            "vwkit: 1\n"
            "images: {path: talos.jpg}\n"
            "featurizer: {use: pixels, space: oklab}\n"
            "clusterer: {use: lloyd, k: 16, iterations: 30}\n"
            "output: {write: palette, path: out/palette}\n"
        )
        found = vwkit.Pipeline.from_file(tmp_path / "talos.yaml").run(tmp_path / "run")
        folder = tmp_path / "out/palette"
        assert {path.name for path in folder.iterdir()} == {
            ".vwkit", "talos.png", "measures.json", "palette.json", "palette.gpl", "palette.css",
            "palette.png", "palette.html", "colours.png", "comparison.png",
        }  # fmt: skip
        made = opened(folder / "talos.png")
        assert made.shape == (60, 90, 4)
        original = np.asarray(PIL.Image.open(tmp_path / "talos.jpg"))
        palette = Palette.load(folder / "palette.json")
        assert len(palette) == 16
        assert len(np.unique(made.reshape(-1, 4), axis=0)) == 16
        nearest = nearest_colours(original.reshape(-1, 3), palette.colours, "oklab")
        assert (made[..., :3].reshape(-1, 3) == palette.colours[nearest]).all()
        (one,) = json.loads((folder / "measures.json").read_text())["pictures"]
        assert one["bytes"] == (folder / "talos.png").stat().st_size
        assert one["original_bytes"] == (tmp_path / "talos.jpg").stat().st_size
        assert one["bits_per_pixel"] == pytest.approx(8 * one["bytes"] / 5400, abs=1e-3)
        assert one["psnr"] == pytest.approx(psnr(original, made[..., :3]))
        assert (one["width"], one["height"], one["colours"]) == (90, 60, 16)
        assert one["original_colours"] == len(distinct_colours(original).colours)
        # Equal pixels were counted once, and nothing was kept for each of them.
        assert found.clusterer.labels.shape == (one["original_colours"],)
        with pytest.raises(vwkit.UnsupportedError, match="add the output labels"):
            found.words  # noqa: B018
        report = (tmp_path / "run/report.html").read_text()
        assert "16 clusters of 5,400 pixels" in report

    @pytest.mark.parametrize("space", ["rgb", "lab", "oklab"])
    @pytest.mark.parametrize("clusterer", ["lloyd", "breathing-kmeans"])
    def test_spaces_and_clusterers(self, tmp_path, space, clusterer):
        picture(2).save(tmp_path / "a.png")
        run(tmp_path, tmp_path / "a.png", 9, featurizer={"use": "pixels", "space": space},
            clusterer={"use": clusterer, "k": 9})  # fmt: skip
        assert len(np.unique(opened(tmp_path / "out/a.png").reshape(-1, 4), axis=0)) == 9
        assert measured(tmp_path)["pictures"][0]["psnr"] > 20

    @pytest.mark.parametrize("dither", ["floyd-steinberg", "blue-noise"])
    def test_dithering(self, tmp_path, dither):
        picture(3).save(tmp_path / "a.png")
        run(tmp_path, tmp_path / "a.png", 6,
            output={"write": "palette", "path": str(tmp_path / "out"), "dither": dither})  # fmt: skip
        made = opened(tmp_path / "out/a.png")
        palette = Palette.load(tmp_path / "out/palette.json")
        assert (palette.picture(palette.apply(picture(3), dither)) == made[..., :3]).all()
        (one,) = measured(tmp_path)["pictures"]
        assert one["psnr"] == pytest.approx(psnr(np.asarray(picture(3)), made[..., :3]))

    def test_few_colours_are_kept_as_they_are(self, tmp_path):
        flat = np.asarray(picture(4)) // 128 * 100
        PIL.Image.fromarray(flat).save(tmp_path / "a.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(tmp_path, tmp_path / "a.png", 200)
        assert (opened(tmp_path / "out/a.png")[..., :3] == flat).all()
        (one,) = measured(tmp_path)["pictures"]
        assert (one["lossless"], one["psnr"], one["delta_e_2000"]) == (True, None, 0)
        assert one["colours"] == one["original_colours"] < 200
        assert "lossless" in (tmp_path / "out/palette.html").read_text()

    def test_opacity(self, tmp_path):
        rgb = np.asarray(picture(5))
        alpha = np.linspace(0, 255, rgb.shape[1]).astype(np.uint8)
        image = np.dstack([rgb, np.broadcast_to(alpha, rgb.shape[:2])])
        PIL.Image.fromarray(image).save(tmp_path / "a.png")
        found = run(tmp_path, tmp_path / "a.png", 24)
        assert found.clusterer.centers.shape == (24, 4)
        made = opened(tmp_path / "out/a.png")
        assert (made[image[..., 3] == 0] == 0).all()
        assert (made[image[..., 3] == 255][:, 3] > 200).all()
        assert np.abs(made[..., 3].astype(int) - image[..., 3]).mean() < 20

    def test_one_pixel(self, tmp_path):
        PIL.Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
        run(tmp_path, tmp_path / "a.png", 16)
        assert opened(tmp_path / "out/a.png").tolist() == [[[1, 2, 3, 255]]]

    def test_a_colour_profile_is_kept(self, tmp_path):
        from PIL import ImageCms

        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        picture(1).save(tmp_path / "a.png", icc_profile=profile)
        run(tmp_path, tmp_path / "a.png", 4)
        with PIL.Image.open(tmp_path / "out/a.png") as made:
            assert made.info["icc_profile"] == profile


class TestPicturesOfAllKinds:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "pictures of mine"
        for name in ("", "ünder", "b"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rgb = picture(1, (40, 24))
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        rgb.save(folder / "turned.jpg", exif=exif)
        rgb.convert("CMYK").save(folder / "cmyk.jpg")
        deep = np.asarray(rgb)[..., 0].astype(np.uint16) * 257
        PIL.Image.fromarray(deep).save(folder / "deep.png")
        rgb.convert("L").save(folder / "grey.png")
        rgb.quantize(8).save(folder / "held.png")
        rgb.save(folder / "moves.gif", save_all=True, append_images=[rgb.rotate(90)])
        rgb.save(folder / "b" / "same.png")
        rgb.save(folder / "same.png")
        rgb.save(folder / "same.jpg")
        rgb.save(folder / "palette.jpg")
        rgb.save(folder / "ünder" / "a <b>&amp; b.png")
        return folder

    NAMES = {
        "turned.png", "cmyk.png", "deep.png", "grey.png", "held.png", "moves.png", "b/same.png",
        "same.png", "same.png.png", "palette.jpg.png", "ünder/a <b>&amp; b.png",
    }  # fmt: skip

    def test_shared(self, folder, tmp_path):
        run(tmp_path, folder, 12)
        found = measured(tmp_path)
        assert {one["file"] for one in found["pictures"]} == self.NAMES
        palette = Palette.load(tmp_path / "out/palette.json")
        own = {tuple(colour) for colour in palette.colours.tolist()}
        assert len(own) == 12
        used = set()
        for one in found["pictures"]:
            made = opened(tmp_path / "out" / one["file"])
            turned = one["id"] == "turned.jpg"
            assert made.shape[:2] == ((40, 24) if turned else (24, 40))
            used |= {tuple(colour[:3]) for row in made.tolist() for colour in row}
        assert used == own
        assert found["total"]["pictures"] == 11
        assert found["total"]["bytes"] == sum(one["bytes"] for one in found["pictures"])
        assert sum(palette.counts) == 11 * 24 * 40

    def test_one_palette_each(self, folder, tmp_path):
        run(tmp_path, folder, 8,
            output={"write": "palette", "path": str(tmp_path / "out"), "shared": False})  # fmt: skip
        found = {one["id"]: one for one in measured(tmp_path)["pictures"]}
        assert found["held.png"]["lossless"]
        for one in found.values():
            made = opened(tmp_path / "out" / one["file"])
            assert len(np.unique(made.reshape(-1, 4), axis=0)) == 8
            stem = one["file"].removesuffix(".png")
            own = Palette.load(tmp_path / "out" / f"{stem}.palette.json")
            assert own.counts.sum() == made.shape[0] * made.shape[1]
        assert not (tmp_path / "out/palette.json").exists()

    def test_the_page(self, folder, tmp_path):
        run(tmp_path, folder, 8)
        page = (tmp_path / "out/palette.html").read_text()
        assert "a &lt;b&gt;&amp;amp; b.png" in page
        assert "<b>&amp;" not in page
        (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src &#x27;sha256-{digest}&#x27;" in page
        assert not re.findall(r"(?:src|href)=\"(?!data:image/(?:png|jpeg);base64,)", page)
        points = base64.b64decode(re.search(r'data-points="([^"]+)"', page)[1])
        centers = base64.b64decode(re.search(r'data-centers="([^"]+)"', page)[1])
        assert len(centers) == 8 * 7
        assert len(points) % 7 == 0
        assert max(points[6::7]) < 8
        assert page.count('class="compare"') == 11
        assert page.count("<li><i style=") == 8

    def test_an_unreadable_picture_is_left_out(self, folder, tmp_path):
        (folder / "broken.png").write_bytes(b"\x89PNG nothing")
        with pytest.warns(vwkit.SkippedItems, match="1 of 12 items"):
            run(tmp_path, folder, 4)
        assert len(measured(tmp_path)["pictures"]) == 11

    def test_names_beyond_the_folder(self, tmp_path):
        from vwkit.outputs.palette import _Names

        names = _Names(shared=True)
        assert names.of("../../etc/passwd.png") == "etc/passwd.png"
        assert names.of("/etc/passwd.jpg") == "etc/passwd.jpg.png"
        assert names.of("etc/passwd.jpg") == "etc/passwd.jpg-2.png"
        assert names.of("etc/PASSWD.jpg") == "etc/PASSWD.jpg-3.png"
        assert names.of("..") == "picture.png"
        alone = _Names(shared=False)
        assert alone.of("x.jpg") == "x.png"
        assert alone.of("x.palette.jpg") == "x.palette.jpg.png"


class TestRuns:
    def test_words_of_each_pixel_if_something_needs_them(self, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        picture(1, (30, 20)).save(folder / "a.png")
        picture(2, (10, 40)).save(folder / "b.png")
        output = [
            {"write": "palette", "path": str(tmp_path / "out")},
            {"write": "labels", "path": str(tmp_path / "labels.npy")},
            {"write": "words", "path": str(tmp_path / "words")},
            {"write": "vectors", "path": str(tmp_path / "vectors.npy")},
            {"write": "vocabulary", "path": str(tmp_path / "vocabulary")},
        ]
        found = run(tmp_path, folder, 7, output=output)
        labels = np.load(tmp_path / "labels.npy")
        assert labels.shape == (1000,)
        assert labels.dtype == np.int32
        assert found.words.offsets.tolist() == [0, 600, 1000]
        assert (found.words.words == labels).all()
        pixels = vwkit.create("featurizer", "pixels", space="oklab")
        rows = np.concatenate(list(pixels.extract([folder / "a.png", folder / "b.png"])))
        assert (np.load(tmp_path / "vectors.npy") == rows).all()
        assert (found.clusterer.predict(rows) == labels).all()
        words = vwkit.load(tmp_path / "vocabulary").encode(rows)[:, 0]
        assert (words == labels).all()
        assert found.features.take([0, 599, 600, 999]).tolist() == rows[[0, 599, 600, 999]].tolist()

    def test_without_outputs_words_are_kept(self, tmp_path):
        picture(1).save(tmp_path / "a.png")
        plan = spec(tmp_path, tmp_path / "a.png", 5)
        del plan["output"]
        found = vwkit.Pipeline.from_dict(plan).run(tmp_path / "run")
        assert found.words.words.shape == (96 * 72,)

    def test_a_clusterer_that_takes_no_weights_gets_all_pixels(self, tmp_path):
        seen = []

        @vwkit.backend("plain-kmeans")
        class Plain(vwkit.Clusterer):
            """Lloyd without weights."""

            k: vwkit.Positive = 3

            def _fit(self, data, weights):
                assert weights is None
                seen.append(data.shape)
                made = vwkit.create("clusterer", "lloyd", k=self.k).fit(data)
                self.centers, self.labels = made.centers, made.labels
                self.objective = made.objective

        picture(1).save(tmp_path / "a.png")
        with registered(Plain):
            for shared in (True, False):
                output = {"write": "palette", "path": str(tmp_path / "out"), "shared": shared}
                run(tmp_path, tmp_path / "a.png", name=f"{shared}", output=output,
                    clusterer={"use": "plain-kmeans", "k": 6})  # fmt: skip
                assert len(np.unique(opened(tmp_path / "out/a.png").reshape(-1, 4), axis=0)) == 6
        assert set(seen) == {(96 * 72, 3)}

    def test_rows_to_learn_from_are_pixels(self, tmp_path):
        picture(1).save(tmp_path / "a.png")
        found = run(tmp_path, tmp_path / "a.png",
                    clusterer={"use": "lloyd", "k": 6, "train_rows": 500})  # fmt: skip
        assert found.clusterer.labels.shape == (500,)
        assert found.words.words.shape == (96 * 72,)
        assert len(Palette.load(tmp_path / "out/palette.json")) == 6

    def test_equal_to_all_pixels(self, tmp_path):
        image = np.asarray(picture(1)) // 16 * 16
        PIL.Image.fromarray(image).save(tmp_path / "a.png")
        start = tmp_path / "start.npy"
        np.save(start, np.unique(image.reshape(-1, 3), axis=0)[::9][:5].astype(np.float32))
        k = len(np.load(start))
        found = run(tmp_path, tmp_path / "a.png", featurizer={"use": "pixels"},
                    clusterer={"use": "lloyd", "k": k, "init": str(start)})  # fmt: skip
        every = vwkit.create("clusterer", "lloyd", k=k, init=start).fit(image.reshape(-1, 3))
        np.testing.assert_allclose(found.clusterer.centers, every.centers, atol=1e-3)

    def test_a_second_run_counts_nothing_again(self, tmp_path, monkeypatch):
        import vwkit.counted

        seen = []
        codes_of = vwkit.counted.codes_of
        monkeypatch.setattr(
            vwkit.counted, "codes_of", lambda image: seen.append(1) or codes_of(image)
        )
        folder = tmp_path / "in"
        folder.mkdir()
        picture(1).save(folder / "a.png")
        run(tmp_path, folder)
        picture(2).save(folder / "b.png")
        run(tmp_path, folder, name="again")
        run(tmp_path, folder, name="rgb", featurizer={"use": "pixels", "space": "rgb"})
        assert len(seen) == 2

    def test_only_folders_of_ours_are_replaced(self, tmp_path):
        picture(1).save(tmp_path / "a.png")
        run(tmp_path, tmp_path / "a.png")
        (tmp_path / "out/kept.txt").write_text("gone with the folder that was ours")
        run(tmp_path, tmp_path / "a.png", name="again")
        assert not (tmp_path / "out/kept.txt").exists()
        (tmp_path / "out/.vwkit").unlink()
        with pytest.raises(vwkit.SpecError, match="holds files that vwkit did not write"):
            run(tmp_path, tmp_path / "a.png", name="third")
        assert (tmp_path / "out/a.png").exists()

    def test_outputs_come_back_with_resume(self, tmp_path):
        import shutil

        picture(1).save(tmp_path / "a.png")
        run(tmp_path, tmp_path / "a.png")
        before = (tmp_path / "out/a.png").read_bytes()
        page = (tmp_path / "out/palette.html").read_bytes()
        shutil.rmtree(tmp_path / "out")
        again = vwkit.Pipeline.from_dict(spec(tmp_path, tmp_path / "a.png"))
        again.run(tmp_path / "run", resume=True)
        assert (tmp_path / "out/a.png").read_bytes() == before
        assert (tmp_path / "out/palette.html").read_bytes() == page

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"clusterer": {"use": "lloyd", "k": 257}}, "at most 256 colours; .* k = 257"),
            ({"transform": {"use": "l2-norm"}}, "needs a clustering of pixels"),
            ({"featurizer": {"use": "colour-histogram"}}, "needs a clustering of pixels"),
            ({"clusterer": {"use": "lloyd"}}, "clusterer.k"),
            ({"output": {"write": "palette", "path": "out", "dither": "ordered"}}, "dither"),
        ],
    )
    def test_specs_that_make_no_palette(self, tmp_path, changes, said):
        picture(1).save(tmp_path / "a.png")
        with pytest.raises(vwkit.SpecError, match=said) as caught:
            run(tmp_path, tmp_path / "a.png", **changes)
        assert len(str(caught.value).splitlines()) == 1
