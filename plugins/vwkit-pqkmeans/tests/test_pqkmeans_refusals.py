"""What does not fit, in codes, centers, specs or memory, is refused with a clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
import vwkit_pqkmeans as plugin
from pqkmeans_fits import fit, float_book, quantizer, some_codes, state
from vwkit_pqkmeans import PQKMeans

import vwkit
from vwkit.errors import DataError, ParameterError, ShapeError, SpecError, UnsupportedError


class TestRefusals:
    def test_codes_outside_the_codebook(self):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 900, 3, 16)
        codes[777, 1] = 16
        with pytest.raises(DataError, match=r"row 777 holds a code outside 0…15"):
            fit(codes, book, 4, init=codes[:4])
        with pytest.raises(DataError, match="outside 0…15"):
            fit(codes, book, 4)
        found = fit(codes[:700], book, 4)
        with pytest.raises(DataError, match="row 777"):
            found.predict(codes)
        with pytest.raises(ShapeError, match="3"):
            found.predict(codes[:, :2])
        with pytest.raises(ShapeError, match=r"\(n, 3\)"):
            fit(codes[:, :2], book, 4)

    def test_codes_of_two_bytes(self):
        wide = vwkit.create("quantizer", "pq", m=1, ks=300, iterations=1)
        wide.fit(np.arange(600, dtype=np.float32).reshape(300, 2))
        codes = wide.encode(np.arange(600, dtype=np.float32).reshape(300, 2))
        with pytest.raises(UnsupportedError, match="ks = 300.* ks: 256, or take graph-pqkmeans"):
            PQKMeans(k=4).fit(codes, quantizer=wide)

    def test_an_additive_quantizer(self):
        book = quantizer(float_book(1, 3, 16))
        with mock.patch.object(type(book), "structure", "additive"):
            with pytest.raises(UnsupportedError, match="product quantizer"):
                PQKMeans(k=4).fit(some_codes(1, 9, 3, 16), quantizer=book)
            with pytest.raises(UnsupportedError, match="product quantizer"):
                PQKMeans.from_centers([[0, 0, 0]], book)

    @pytest.mark.parametrize(
        ("centers", "book", "said"),
        [
            ([[0, 1]], [[[0], [9]]], r"\(n, 1\)"),
            ([[2]], [[[0], [9]]], "outside 0…1"),
            ([[0.5]], [[[0], [9]]], "whole numbers"),
            ([], [[[0], [9]]], r"\(n, 1\)"),
            (np.zeros((0, 1), int), [[[0], [9]]], "at least one"),
            ([[0], [0, 1]], [[[0], [9]]], "cannot be read"),
            ([[0]], [[0, 9]], r"\(m, ks, d/m\)"),
            ([[0]], [[["a"], ["b"]]], "numbers"),
            ([[0]], [[[0], [np.inf]]], "infinity"),
            ([[0]], [[[0], [1e300]]], "infinity"),
            ([[0]], [[[0], [1, 2]]], "cannot be read"),
            (None, [[[0], [9]]], r"\(n, 1\)"),
        ],
    )
    def test_centers_and_codebooks_that_do_not_fit(self, centers, book, said):
        with pytest.raises(DataError, match=said):
            PQKMeans.from_centers(centers, book)

    def test_given_centers_that_do_not_fit(self, tmp_path):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 90, 3, 16)
        np.save(tmp_path / "start.npy", codes[:4])
        one = fit(codes, book, 4, init=codes[:4])
        assert state(fit(codes, book, 4, init=tmp_path / "start.npy")) == state(one)
        assert state(fit(codes, book, 4, init=codes[:4].tolist())) == state(one)
        for init, said in (
            (codes[:5], r"\(4, 3\) are needed; got \(5, 3\)"),
            (codes[:4, :2], r"\(n, 3\)"),
            (np.full((4, 3), 16), "outside 0…15"),
            (codes[:4] / 2, "whole numbers"),
            (tmp_path / "nowhere.npy", "nowhere.npy is not a readable"),
        ):
            with pytest.raises(DataError, match=said):
                fit(codes, book, 4, init=init)
        (tmp_path / "bad.npy").write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(DataError, match="bad.npy is not a readable"):
            fit(codes, book, 4, init=tmp_path / "bad.npy")
        with pytest.raises(DataError, match="init: kmeans is not a readable"):
            fit(codes, book, 4, init="kmeans")
        with pytest.raises(ParameterError, match="init"):
            PQKMeans(k=4, init=7)

    def test_more_clusters_than_codes(self):
        with pytest.raises(DataError, match="k = 4 clusters need at least 4 rows; got 3"):
            fit(some_codes(1, 3, 2, 16), float_book(1, 2, 16), 4)


class TestMemory:
    def test_too_much_is_refused_before_it_starts(self):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 90, 3, 16)
        told: list[Any] = []
        small = vwkit.Job(memory=1 << 20, progress=lambda *values: told.append(values))
        with pytest.raises(
            DataError, match=r"90 codes of 3 bytes in 4 clusters need \d+ MiB .* may use 1: take"
        ):
            fit(codes, book, 4, job=small)
        with (
            mock.patch.object(plugin, "_free_memory", return_value=2 << 20),
            pytest.raises(DataError, match=r"need \d+ MiB of memory, and 2 are free"),
        ):
            fit(codes, book, 4)
        assert not told
        assert plugin._free_memory() > 1 << 20

    def test_it_grows_with_labels_centers_and_nothing_else(self):
        with vwkit.use_job(vwkit.Job(memory=1 << 30)):
            need = plugin.memory_need(10**6, 4, 1000)
            assert plugin.memory_need(2 * 10**6, 4, 1000) - need < 60 * 10**6
            many = plugin.memory_need(10**8, 4, 1000)
            assert plugin.memory_need(10**8 + 10**6, 4, 1000) - many == 4 * 10**6
            # Above 1 GiB labels lie in a file.
            assert plugin.memory_need(10**9, 4, 1000) < many
            assert PQKMeans(k=1000)._memory_need(10**6, 4) == need

    @pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted otherwise elsewhere")
    def test_it_is_not_more_than_said(self):
        code = """
import json, resource, numpy as np, vwkit, vwkit_pqkmeans as plugin
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
codes = np.random.default_rng(0).integers(0, 256, (500_000, 4), dtype=np.uint8)
book = np.random.default_rng(1).normal(size=(4, 256, 2)).astype(np.float32)
pq = plugin.PQKMeans.from_centers(codes[:1], book).quantizer
plugin.PQKMeans(k=2, iterations=1).fit(codes[:9000], quantizer=pq)
before = peak()
plugin.PQKMeans(k=40, iterations=1).fit(codes, quantizer=pq)
print(json.dumps([peak() - before, plugin.memory_need(500_000, 4, 40)]))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        )
        used, said = json.loads(done.stdout)
        assert used < said < 100 << 20


class TestSpecs:
    def text(self, quantizer):
        return (
            "vwkit: 1\nvectors: {path: x.npy}\n"
            f"quantizer: {{{quantizer}}}\nclusterer: {{use: pqkmeans, k: 4}}\n"
        )

    def test_wide_codes_are_refused_before_data_are_read(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((400, 4), np.uint8))
        path = tmp_path / "s.yaml"
        path.write_text(self.text("use: pq, m: 2, ks: 300"))
        with pytest.raises(SpecError) as caught:
            vwkit.Pipeline.from_file(path)
        assert "3:28: quantizer.ks: pqkmeans takes codes of one byte" in str(caught.value)
        path.write_text(self.text("use: pq, m: 2, ks: 256"))
        vwkit.Pipeline.from_file(path)

    def test_memory_is_told(self, caplog):
        caplog.set_level("INFO", "vwkit")
        rows = np.arange(600, dtype=np.float32).reshape(300, 2)
        pq = vwkit.create("quantizer", "pq", m=1, ks=16, iterations=1).fit(rows)
        PQKMeans(k=4).fit(pq.encode(rows), quantizer=pq)
        assert "pqkmeans: 300 codes of 1 bytes in 4 clusters need up to" in caplog.text
