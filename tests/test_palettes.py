"""Palettes from Python: colours counted, clustered, repaired, assigned, dithered, measured, written."""

import json
import warnings

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import vwkit
from tests.helpers import picture as made_picture
from vwkit.builtin.breathing import BreathingKMeans
from vwkit.builtin.lloyd import Lloyd
from vwkit.palettes import (
    SPACES,
    Palette,
    colour_distances,
    colour_vectors,
    delta_e,
    distinct_colours,
    fit_palette,
    make_palette,
    nearest_colours,
    psnr,
    quantize,
    vector_colours,
    write_png8,
)
from vwkit.palettes.distinct import Counter, codes_of, colours_of, packed, places_of
from vwkit.palettes.dithering import blue_noise
from vwkit.palettes.measures import ciede2000, measures
from vwkit.palettes.nearest import repaired
from vwkit.reference import pixels as reference

RGB = arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3)))
FEW = arrays(
    np.uint8,
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from([3, 4])),
    elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
)


def photo(seed=0, h=40, w=60):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    grown = PIL.Image.fromarray(small).resize((w, h), PIL.Image.Resampling.BICUBIC)
    return np.asarray(grown)


def transparent(seed=0):
    rgb = photo(seed)
    alpha = np.linspace(0, 255, rgb.shape[1]).round().astype(np.uint8)
    return np.dstack([rgb, np.broadcast_to(alpha, rgb.shape[:2])])


def shown(image):
    """What is to be seen of a picture: nothing hides behind full transparency."""
    seen = image.copy()
    if seen.shape[2] == 4:
        seen[seen[:, :, 3] == 0] = 0
    return seen


class TestDistances:
    """What the euclidean distance of colours is, between points and to all centers."""

    def test_between_two_points(self):
        found = colour_distances(np.uint8([[0, 0, 0]]), np.uint8([[3, 4, 0]]))
        assert found.tolist() == [[5.0]]
        same = colour_distances(np.uint8([[7, 8, 9]]), np.uint8([[7, 8, 9]]))
        assert same.tolist() == [[0.0]]

    def test_between_a_point_and_all_centers(self):
        centers = np.uint8([[0, 0, 0], [0, 0, 5], [3, 4, 0], [255, 255, 255]])
        (found,) = colour_distances(np.uint8([[0, 0, 0]]), centers)
        assert found.shape == (4,)
        np.testing.assert_allclose(found, [0, 5, 5, 255 * 3**0.5])

    @given(RGB, st.sampled_from(SPACES))
    def test_against_the_reference(self, image, space):
        rows = image.reshape(-1, 3)
        found = colour_distances(rows, rows[:3], space)
        expected = reference.distances(rows, rows[:3], space)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-4)
        np.testing.assert_allclose(found[:3, :3], found[:3, :3].T, atol=1e-9)


class TestSpaces:
    @pytest.mark.parametrize("space", SPACES)
    def test_there_and_back(self, space):
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
        assert (vector_colours(colour_vectors(cube, space), space) == cube).all()
        np.testing.assert_allclose(
            colour_vectors(cube, space), reference.pixels(cube[None], space), rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("space", SPACES)
    @given(alpha=st.integers(0, 255), colours=arrays(np.uint8, (4, 3)))
    def test_opacity_there_and_back(self, space, alpha, colours):
        given_ones = np.c_[colours, np.full(4, alpha, np.uint8)]
        back = vector_colours(colour_vectors(given_ones, space), space)
        assert (back[:, 3] == alpha).all()
        if alpha == 0:
            assert (back == 0).all()
        else:
            # A faint colour is known as well as it is seen.
            assert np.abs(back[:, :3].astype(int) - colours).max() <= (0 if alpha > 15 else 1)

    @given(arrays(np.uint8, (2, 4)))
    def test_the_distance_is_the_mean_on_black_and_on_white(self, pair):
        one, other = colour_vectors(pair, "rgb").astype(float)
        a, b = pair.astype(float)
        seen = [
            np.sum((a[:3] * a[3] / 255 + back * (1 - a[3] / 255)
                    - b[:3] * b[3] / 255 - back * (1 - b[3] / 255)) ** 2)
            for back in (0, 255)
        ]  # fmt: skip
        assert np.sum((one - other) ** 2) == pytest.approx(np.mean(seen), rel=1e-4, abs=1e-2)

    @pytest.mark.parametrize("space", SPACES)
    def test_opaque_colours_keep_their_distances(self, space):
        colours = photo().reshape(-1, 3)[:50]
        plain = colour_vectors(colours, space).astype(float)
        full = colour_vectors(np.c_[colours, np.full(50, 255, np.uint8)], space).astype(float)
        expected = ((plain[:, None] - plain) ** 2).sum(axis=2)
        np.testing.assert_allclose(
            ((full[:, None] - full) ** 2).sum(axis=2),
            expected,
            rtol=1e-4,
            atol=1e-4 * expected.max(),
        )

    def test_what_is_no_colour(self):
        with pytest.raises(vwkit.ParameterError, match="unknown colour space 'hsv'; there are rgb"):
            colour_vectors(np.zeros((1, 3), np.uint8), "hsv")
        for wrong in (np.zeros((1, 3)), np.zeros(3, np.uint8), np.zeros((1, 5), np.uint8)):
            with pytest.raises(vwkit.DataError, match=r"colours are \(n, 3\) or \(n, 4\) uint8"):
                colour_vectors(wrong)
        with pytest.raises(vwkit.DataError, match="colour vectors are"):
            vector_colours(np.zeros((2, 5)))


class TestDistinct:
    @given(FEW)
    def test_each_colour_once_and_back(self, image):
        colours, counts, inverse = distinct_colours(image)
        assert inverse.shape == image.shape[:2]
        assert inverse.dtype == np.int32
        assert counts.sum() == image.shape[0] * image.shape[1]
        assert (counts == np.bincount(inverse.ravel(), minlength=len(colours))).all()
        assert len(np.unique(colours, axis=0)) == len(colours)
        back = colours[inverse]
        if back.shape[2] < image.shape[2]:
            back = np.dstack([back, np.full(back.shape[:2], 255, np.uint8)])
        assert (back == shown(image)).all()

    def test_a_large_picture_in_parts(self, monkeypatch):
        import vwkit.palettes.distinct as module

        image = photo(3, 200, 300)
        whole = distinct_colours(image)
        monkeypatch.setattr(module, "_CHUNK", 997)
        parts = distinct_colours(image)
        for one, other in zip(whole, parts, strict=True):
            assert (one == other).all()

    def test_pictures_are_counted_together(self):
        counter, each = Counter(), []
        for seed in range(3):
            image = vwkit.image.open_image(photo(seed))
            counter.add(codes_of(image))
            each.append(photo(seed).reshape(-1, 3))
        codes, counts = counter.result()
        expected, often = np.unique(np.concatenate(each), axis=0, return_counts=True)
        assert (colours_of(codes) == expected).all()
        assert (counts == often).all()
        assert (packed(colours_of(codes)) == codes).all()
        assert (places_of(codes, codes) == np.arange(len(codes))).all()

    def test_nothing_to_count(self):
        with pytest.raises(vwkit.DataError, match="no pixel"):
            Counter().result()


class TestQuantize:
    @given(FEW, st.integers(1, 9), st.sampled_from(SPACES))
    def test_the_picture_has_its_shape_and_at_most_k_colours(self, image, k, space):
        made = quantize(image, k, space=space)
        assert made.indices.shape == image.shape[:2]
        assert made.indices.dtype == np.uint8
        assert made.picture.shape[:2] == image.shape[:2]
        assert made.palette.colours.dtype == np.uint8
        distinct = len(distinct_colours(image).colours)
        # Never fewer than asked for, where the picture has as many.
        assert len(made.palette) == min(k, distinct)
        assert len(np.unique(made.indices)) == len(made.palette)
        assert (made.palette.counts == np.bincount(made.indices.ravel())).all()
        if distinct <= k:
            back = made.picture
            if back.shape[2] < image.shape[2]:
                back = np.dstack([back, np.full(back.shape[:2], 255, np.uint8)])
            assert (back == shown(image)).all()

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize("k", [1, 2, 16, 256])
    def test_every_pixel_has_its_nearest_colour(self, space, k):
        image = photo(4)
        made = quantize(image, k, space=space)
        assert made.palette.colours.shape == (k, 3)
        distances = colour_distances(image.reshape(-1, 3), made.palette.colours, space)
        own = distances[np.arange(len(distances)), made.indices.ravel()]
        np.testing.assert_allclose(own, distances.min(axis=1), atol=1e-5)

    def test_the_palette_is_the_set_of_centers(self):
        image = photo(5)
        clusterer = Lloyd(k=8)
        counted = distinct_colours(image)
        palette, nearest = fit_palette(*counted[:2], 8, space="rgb", clusterer=clusterer)
        centers = np.rint(clusterer.centers).astype(np.uint8)
        assert palette.colours.shape == (8, 3)
        assert {tuple(row) for row in palette.colours} == {tuple(row) for row in centers}
        assert (nearest == nearest_colours(counted.colours, palette.colours)).all()

    def test_weights_are_as_good_as_all_pixels(self):
        image = photo(6) // 32 * 32
        rows = image.reshape(-1, 3)
        start = np.unique(rows, axis=0)[::40][:6].astype(np.float32)
        every = Lloyd(k=len(start), init=start).fit(rows)
        counted = distinct_colours(image)
        once = Lloyd(k=len(start), init=start).fit(counted.colours, counted.counts)
        np.testing.assert_allclose(once.centers, every.centers, atol=1e-3)
        np.testing.assert_allclose(once.objective, every.objective, rtol=1e-6)
        assert (once.labels[counted.inverse.ravel()] == every.labels).mean() > 0.999

    def test_no_worse_than_lloyd(self):
        image = photo(7, 80, 120)
        counted = distinct_colours(image)
        for k in (4, 16, 64):
            lloyd = Lloyd(k=k).fit(counted.colours, counted.counts)
            ours = BreathingKMeans(k=k).fit(counted.colours, counted.counts)
            assert ours.objective[-1] <= lloyd.objective[-1] * 1.002

    def test_the_same_for_any_number_of_threads(self):
        image = photo(8, 100, 140)
        made = []
        for threads in (1, 3):
            with vwkit.use_job(vwkit.Job(threads=threads)):
                made.append(quantize(image, 24, dither="floyd-steinberg"))
        assert (made[0].indices == made[1].indices).all()
        assert (made[0].palette.colours == made[1].palette.colours).all()

    def test_few_colours_warn_of_nothing(self):
        flat = np.zeros((5, 5, 3), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for k in (1, 2, 256):
                assert quantize(flat, k).palette.hex == ["#000000"]
            assert quantize(flat[:1, :1], 16).indices.tolist() == [[0]]

    @pytest.mark.parametrize("k", [0, 257, -3])
    def test_a_png_8_holds_256(self, k):
        with pytest.raises(vwkit.ParameterError, match=f"k must be from 1 to 256.*got {k}"):
            quantize(photo(), k)
        with pytest.raises(vwkit.ParameterError, match="k must be"):
            make_palette([photo()], k)

    def test_centers_that_round_to_the_same_colour(self):
        # 40 greys that are neighbours, and 30 centers: many round to the same.
        colours = np.repeat(np.arange(40, dtype=np.uint8)[:, None], 3, axis=1)
        counts = np.ones(40, np.int64)
        start = np.repeat(np.uint8([[10, 10, 10]]), 30, axis=0)
        palette, nearest = repaired(start, colours, counts, 30, "rgb")
        assert palette.shape == (30, 3)
        assert len(np.unique(palette, axis=0)) == 30
        assert len(np.unique(nearest)) == 30

    @given(st.integers(0, 1000), st.integers(2, 40), st.sampled_from(SPACES))
    def test_repaired_from_anything(self, seed, k, space):
        rng = np.random.default_rng(seed)
        colours = np.unique(rng.integers(0, 7, (300, 3)).astype(np.uint8), axis=0)
        counts = rng.integers(1, 50, len(colours))
        wanted = rng.integers(0, 256, (rng.integers(1, k + 1), 3)).astype(np.uint8)
        palette, nearest = repaired(wanted, colours, counts, k, space)
        assert len(np.unique(palette, axis=0)) == len(palette) == k
        assert len(np.unique(nearest)) == k
        assert (nearest == nearest_colours(colours, palette, space)).all()

    def test_one_palette_for_several_pictures(self):
        images = [photo(1), photo(2)]
        palette = make_palette(images, 12, space="lab")
        assert len(palette) == 12
        assert palette.counts.sum() == 2 * 40 * 60
        for image in images:
            indices = palette.apply(image)
            assert (palette.picture(indices).shape) == image.shape
            expected = nearest_colours(image.reshape(-1, 3), palette.colours, "lab")
            assert (indices.ravel() == expected).all()
        with pytest.raises(vwkit.DataError, match="no pixel"):
            make_palette([], 3)


class TestOpacity:
    def test_hidden_colours_have_no_vote(self):
        image = np.zeros((4, 50, 4), np.uint8)
        image[:2, :, :3] = np.random.default_rng(0).integers(0, 256, (2, 50, 3))
        image[2:] = [10, 200, 30, 255]
        made = quantize(image, 8)
        assert made.palette.hex == ["#00000000", "#0ac81e"]
        assert made.palette.counts.tolist() == [100, 100]

    @pytest.mark.parametrize("space", SPACES)
    @pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "blue-noise"])
    def test_it_comes_back_from_the_file(self, space, dither, tmp_path):
        image = transparent()
        made = quantize(image, 32, space=space, dither=dither)
        made.save(tmp_path / "a.png")
        with PIL.Image.open(tmp_path / "a.png") as picture:
            assert picture.mode == "P"
            back = np.asarray(picture.convert("RGBA"))
        assert (back == made.picture).all()
        # Transparent ones come first, so that their chunk is short.
        alpha = made.palette.colours[:, 3]
        assert (np.diff(alpha.astype(int)) >= 0).all()
        error = np.abs(back[:, :, 3].astype(int) - image[:, :, 3])
        assert error.mean() < (16 if dither == "none" else 30)
        clear = image[:, :, 3] == 0
        assert clear.any()
        assert (back[clear] == 0).all()

    def test_opaque_pixels_stay_opaque(self):
        image = np.dstack([photo(), np.full((40, 60), 255, np.uint8)])
        image[:3, :, 3] = 250
        made = quantize(image, 6)
        assert (made.picture[3:, :, 3] == 255).all()

    def test_pictures_without_opacity_use_a_palette_with(self):
        palette = make_palette([transparent(), photo()], 10)
        indices = palette.apply(photo())
        assert palette.colours.shape == (10, 4)
        assert (palette.picture(indices)[:, :, 3] > 200).all()


class TestDithering:
    def test_against_the_plain_loop(self):
        image = photo(2, 9, 13)
        made = quantize(image, 5, space="rgb")
        found = made.palette.apply(image, "floyd-steinberg")
        expected = reference.floyd_steinberg(image, made.palette.colours)
        assert (
            found == expected
        ).mean() > 0.97  # float32 against float64: a tie may fall otherwise

    @pytest.mark.parametrize("dither", ["floyd-steinberg", "blue-noise"])
    def test_areas_keep_their_colour(self, dither):
        ramp = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], 64, axis=0)
        image = np.repeat(ramp, 3, axis=2)
        palette = Palette(np.uint8([[0] * 3, [255] * 3]), np.array([1, 1]), "rgb")
        means = {}
        for method in ("none", dither):
            picture = palette.picture(palette.apply(image, method)).astype(float)
            blocks = picture[..., 0].reshape(8, 8, 12, 8).mean(axis=(1, 3))
            means[method] = np.abs(blocks - image[..., 0].reshape(8, 8, 12, 8).mean(axis=(1, 3)))
        assert means[dither].mean() < 12
        assert means["none"].mean() > 50

    @pytest.mark.parametrize("dither", ["floyd-steinberg", "blue-noise"])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (70, 130)])
    def test_all_shapes(self, dither, shape):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        made = quantize(image, 4, dither=dither)
        assert made.indices.shape == shape
        assert made.indices.max() < len(made.palette)
        assert made.palette.counts.sum() == shape[0] * shape[1]

    def test_exact_colours_are_not_dithered(self):
        image = photo(1) // 128 * 255
        for dither in ("floyd-steinberg", "blue-noise"):
            made = quantize(image, 8, dither=dither)
            assert (made.picture == image).all()

    def test_the_mask_is_even(self):
        mask = blue_noise()
        assert mask.shape == (64, 64)
        assert len(np.unique(mask)) == 64 * 64
        assert 0 < mask.min() < mask.max() < 1
        assert mask.mean() == pytest.approx(0.5)
        # Blue: little of it is in low frequencies.
        power = np.abs(np.fft.fft2(mask - mask.mean())) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
        assert power[frequency < 0.1].mean() < 0.05 * power[frequency > 0.3].mean()

    def test_an_unknown_method(self):
        with pytest.raises(
            vwkit.ParameterError, match="unknown dithering 'ordered'; there are none"
        ):
            quantize(photo(), 4, dither="ordered")


class TestMeasures:
    def test_psnr(self):
        black = np.zeros((3, 4, 3), np.uint8)
        assert psnr(black, black) == np.inf
        assert psnr(black, black + 255) == pytest.approx(0)
        off = black.copy()
        off[0, 0, 0] = 36
        assert psnr(black, off) == pytest.approx(10 * np.log10(255**2 / 36))
        assert psnr(black[..., 0], off[..., 0]) == pytest.approx(10 * np.log10(255**2 / 108))

    def test_psnr_of_opacity(self):
        clear = np.zeros((1, 1, 4), np.uint8)
        hidden = clear + np.uint8([90, 90, 90, 0])
        assert psnr(clear, hidden) == np.inf
        black = clear + np.uint8([0, 0, 0, 255])  # the same on black, opposite on white
        assert psnr(clear, black) == pytest.approx(10 * np.log10(2))

    def test_psnr_of_unlike_pictures(self):
        with pytest.raises(vwkit.ShapeError, match="equal shape"):
            psnr(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8))
        with pytest.raises(vwkit.DataError, match="pictures are"):
            psnr(np.zeros((2, 2, 3)), np.zeros((2, 2, 3)))

    # Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula", table 1.
    PAIRS = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
        ((50, 2.8361, -74.0200), (50, 0, -82.7485), 3.4412),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0010), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
        ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
        ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ]

    @pytest.mark.parametrize(("one", "other", "expected"), PAIRS)
    def test_ciede2000_by_its_table(self, one, other, expected):
        for a, b in ((one, other), (other, one)):
            (found,) = ciede2000(np.array([a], float), np.array([b], float))
            assert found == pytest.approx(expected, abs=5e-5)

    def test_delta_e(self):
        red, blue = np.uint8([[255, 0, 0]]), np.uint8([[0, 0, 255]])
        lab = reference.pixels(np.stack([red, blue]), "lab")
        expected = float(np.linalg.norm(lab[0] - lab[1]))
        assert delta_e(red, blue, "cie76")[0] == pytest.approx(expected)
        assert delta_e(red, red)[0] == 0
        with pytest.raises(vwkit.ParameterError, match="unknown colour difference 'cie94'"):
            delta_e(red, blue, "cie94")
        with pytest.raises(vwkit.ShapeError):
            delta_e(red, np.zeros((2, 3), np.uint8))

    def test_pairs_with_counts_are_whole_pictures(self):
        image = photo(3)
        made = quantize(image, 7)
        counted = distinct_colours(image)
        nearest = made.palette.nearest(counted.colours)
        found = measures(counted.colours, made.palette.colours[nearest], counted.counts)
        flat, other = image.reshape(-1, 3), made.picture.reshape(-1, 3)
        assert found["psnr"] == pytest.approx(psnr(image, made.picture))
        assert found["delta_e_76"] == pytest.approx(delta_e(flat, other, "cie76").mean())
        assert found["delta_e_2000"] == pytest.approx(delta_e(flat, other).mean())
        same = measures(counted.colours, counted.colours, counted.counts)
        assert same == {"psnr": None, "delta_e_76": 0.0, "delta_e_2000": 0.0}

    def test_opacity_is_measured_on_black_and_on_white(self):
        image = transparent()
        made = quantize(image, 9, space="rgb")
        counted = distinct_colours(image)
        nearest = made.palette.nearest(counted.colours)
        found = measures(counted.colours, made.palette.colours[nearest], counted.counts)
        assert found["psnr"] == pytest.approx(psnr(image, made.picture), abs=1e-9)


class TestFiles:
    @pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 16, 17, 255, 256])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_png_8(self, k, channels, tmp_path):
        rng = np.random.default_rng(k)
        colours = rng.integers(0, 256, (k, channels)).astype(np.uint8)
        indices = rng.integers(0, k, (20, 31))
        write_png8(tmp_path / "ä b.png", indices, colours)
        with PIL.Image.open(tmp_path / "ä b.png") as picture:
            assert (picture.mode, picture.size, picture.format) == ("P", (31, 20), "PNG")
            back = np.asarray(picture.convert("RGBA"))
        assert (back[:, :, :channels] == colours[indices]).all()

    def test_what_no_png_8_is(self, tmp_path):
        one = np.zeros((1, 3), np.uint8)
        for indices, colours, said in [
            (np.zeros((2, 2), int), np.zeros((257, 3), np.uint8), "1 to 256 colours; got 257"),
            (np.zeros((2, 2), int), np.zeros((0, 3), np.uint8), "got 0"),
            (np.zeros((2, 2)), one, "whole numbers"),
            (np.zeros(4, int), one, "whole numbers"),
            (np.ones((2, 2), int), one, "run from 1 to 1; the palette has 1"),
            (np.full((2, 2), -1), one, "run from -1"),
        ]:
            with pytest.raises(vwkit.DataError, match=said):
                write_png8(tmp_path / "a.png", indices, colours)
        with pytest.raises(vwkit.VwkitError, match="cannot be written"):
            write_png8(tmp_path / "gone" / "a.png", np.zeros((2, 2), int), one)

    def test_a_palette_in_files(self, tmp_path):
        made = quantize(transparent(), 5)
        palette = made.palette
        for kind in ("json", "gpl", "css", "png"):
            palette.save(tmp_path / f"p.{kind}")
        again = Palette.load(tmp_path / "p.json")
        assert (again.colours == palette.colours).all()
        assert (again.counts == palette.counts).all()
        assert again.space == palette.space
        held = json.loads((tmp_path / "p.json").read_text())
        assert [one["hex"] for one in held["colours"]] == palette.hex
        assert sum(one["share"] for one in held["colours"]) == pytest.approx(1, abs=1e-4)
        lines = (tmp_path / "p.gpl").read_text().splitlines()
        assert lines[:2] == ["GIMP Palette", "Name: p"]
        assert [[int(v) for v in line.split()[:3]] for line in lines[4:]] == palette.colours[
            :, :3
        ].tolist()
        css = (tmp_path / "p.css").read_text()
        assert f"--colour-5: {palette.hex[4]};" in css
        with PIL.Image.open(tmp_path / "p.png") as picture:
            assert picture.width == 960
            seen = {tuple(colour) for _, colour in picture.convert("RGBA").getcolors(1 << 20)}
        assert {tuple(colour) for colour in palette.colours.tolist()} <= seen

    def test_names_do_no_harm(self):
        palette = quantize(photo(), 2).palette
        nasty = "*/ } body { display: none } /*\nName: other\u2028\udc80"
        assert "*/ }" not in palette.to_css(nasty)
        assert len(palette.to_gpl(nasty).splitlines()) == 4 + 2
        assert json.loads(palette.to_json(nasty))["name"] == nasty
        palette.to_css(nasty).encode()
        palette.to_gpl(nasty).encode()

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{", '{"format": 99}', '{"format": 1, "space": "rgb", "colours": []}',
         '{"format": 1, "space": "rgb", "colours": [{"hex": "red", "pixels": 1}]}',
         '{"format": 1, "space": "hsv", "colours": [{"hex": "#000000", "pixels": 1}]}',
         '{"format": 1, "space": "rgb", "colours": [{"hex": "#000000"}]}', "\x00\x01"],
    )  # fmt: skip
    def test_files_that_are_no_palette(self, text, tmp_path):
        path = tmp_path / "p.json"
        path.write_text(text)
        with pytest.raises(vwkit.VwkitError, match="p.json|unknown colour space"):
            Palette.load(path)

    def test_more_files_that_are_no_palette(self, tmp_path):
        with pytest.raises(vwkit.FormatError, match="no such file"):
            Palette.load(tmp_path / "gone.json")
        (tmp_path / "large.json").write_bytes(b" " * (1 << 21))
        with pytest.raises(vwkit.FormatError, match="too large"):
            Palette.load(tmp_path / "large.json")
        with pytest.raises(vwkit.ParameterError, match=r"\.json, \.gpl, \.css or \.png"):
            quantize(photo(), 2).palette.save(tmp_path / "p.ase")
        with pytest.raises(vwkit.RunError, match="cannot be written"):
            quantize(photo(), 2).palette.save(tmp_path / "gone" / "p.css")

    def test_swatches_for_jupyter(self):
        made = quantize(transparent(), 3)
        html = made._repr_html_()
        assert html.count("<span") == 3
        assert all(f"background:{code}" in html for code in made.palette.hex)
        assert "Palette(3 colours in lab" in repr(made.palette)

    def test_a_palette_of_unlike_lengths(self):
        with pytest.raises(vwkit.DataError, match="a count for each of its 2 colours"):
            Palette(np.zeros((2, 3), np.uint8), np.array([1]), "rgb")


def test_a_file_does_as_well_as_an_array(tmp_path):
    path = tmp_path / "ü ö.png"
    made_picture(1).save(path)
    from_file, from_array = quantize(path, 4), quantize(np.asarray(made_picture(1)), 4)
    assert (from_file.indices == from_array.indices).all()
