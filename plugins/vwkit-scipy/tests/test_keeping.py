"""A tree that is kept: saved and checked when it is loaded, and cut again in another run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agglomerative_rows import made, rows

import vwkit


class TestSaved:
    """A tree that is none never reaches SciPy."""

    def spoilt(self, tmp_path, change):
        one = made().fit(rows(19, 12))
        state = {name: np.array(array) for name, array in one._state().items()}
        change(state)
        one._state = lambda: state
        one.save(tmp_path / "saved")
        return tmp_path / "saved"

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda s: s["tree"].__setitem__((3, 0), 99), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), 15.0), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), -1), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 0), 0.5), "row 3 joins what is not there"),
            (lambda s: s["tree"].__setitem__((3, 2), np.nan), "NaN or infinity"),
            (lambda s: s["tree"].__setitem__((3, 2), np.inf), "NaN or infinity"),
            (lambda s: s["tree"].__setitem__((3, 2), -1e-9), "a height is negative"),
            (lambda s: s["tree"].__setitem__((10, 3), 5), "sizes do not add up"),
            (lambda s: s["tree"].__setitem__((10, 0), s["tree"][0, 0]), "joined twice"),
            (lambda s: s.update(tree=s["tree"][:-1]), r"12 rows make float64 of \(11, 4\)"),
            (lambda s: s.update(tree=s["tree"].astype(np.float32)), "float32 of shape"),
            (lambda s: s.update(tree=s["tree"][:, :3]), "of shape"),
            (lambda s: s.update(rows=np.array(13)), "13 rows"),
            (lambda s: s.update(rows=np.array(0)), "rows or diameter"),
            (lambda s: s.update(rows=np.array([12])), "rows or diameter"),
            (lambda s: s.update(rows=np.array(12.0)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array(np.nan)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array(-1.0)), "rows or diameter"),
            (lambda s: s.update(diameter=np.array([1.0])), "rows or diameter"),
            (lambda s: s.pop("diameter"), "it has no diameter"),
            (lambda s: s.pop("tree"), "it has no tree"),
        ],
    )
    def test_a_damaged_tree_is_refused(self, tmp_path, change, text):
        folder = self.spoilt(tmp_path, change)
        with pytest.raises(vwkit.ArtifactError, match=text) as caught:
            vwkit.load(folder)
        assert str(caught.value).startswith(f"{folder}: the saved tree is damaged: ")
        assert "\n" not in str(caught.value)

    def test_a_changed_byte_is_refused(self, tmp_path):
        made().fit(rows(20, 12)).save(tmp_path / "saved")
        (file,) = (tmp_path / "saved").glob("tree-*")
        file.write_bytes(file.read_bytes()[:-8] + b"\0" * 7 + b"\x7f")
        with pytest.raises(vwkit.ArtifactError, match="checksum"):
            vwkit.load(tmp_path / "saved")

    def test_parameters_that_cannot_be(self, tmp_path):
        from vwkit.artifact import change_params

        made().fit(rows(21, 12)).save(tmp_path / "saved")
        change_params(tmp_path / "saved", {"height": 1.0})
        with pytest.raises(vwkit.ArtifactError, match="both say where to cut"):
            vwkit.load(tmp_path / "saved")


class TestRun:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))

    def spec(self, folder, **cut):
        path = folder / "x.npy"
        if not path.exists():
            vwkit.write(path, rows(22, 90, 5, "groups"))
        return {
            "vwkit": 1,
            "vectors": {"path": str(path)},
            "clusterer": {"use": "agglomerative", **cut},
            "output": {"write": "labels", "path": str(folder / "labels.npy")},
        }

    def test_another_similarity_repeats_only_the_cut(self, tmp_path, caplog):
        for turn, cut in enumerate(
            ({"similarity": 0.95}, {"similarity": 0.3}, {"clusters": 4}, {"height": 0.5}, {})
        ):
            with caplog.at_level(logging.INFO, "vwkit"):
                caplog.clear()
                run = vwkit.Pipeline.from_dict(self.spec(tmp_path, **cut)).run(
                    tmp_path / f"run{turn}"
                )
            data = vwkit.read(tmp_path / "x.npy").toarray()
            origin = run.manifest["stages"]["clusterer"]["from"]
            assert origin == ("cache" if turn else "computed")
            fresh = made(**cut).fit(data)
            assert (run.clusterer.labels == fresh.labels).all()
            assert (np.load(tmp_path / "labels.npy") == fresh.labels).all()
            assert vwkit.load(tmp_path / f"run{turn}/clusterer").params() == run.clusterer.params()
            assert run.clusterer.params() == {**fresh.params(), "seed": run.clusterer.seed}
            assert fresh.summary() in caplog.text

    def test_another_linkage_is_another_tree(self, tmp_path):
        vwkit.Pipeline.from_dict(self.spec(tmp_path)).run(tmp_path / "run1")
        run = vwkit.Pipeline.from_dict(self.spec(tmp_path, linkage="ward")).run(tmp_path / "run2")
        assert run.manifest["stages"]["clusterer"]["from"] == "computed"

    def test_rows_to_learn_from_are_refused(self, tmp_path):
        spec = self.spec(tmp_path, train_rows=10)
        with pytest.raises(vwkit.SpecError, match="labels only the rows that it is fitted on"):
            vwkit.Pipeline.from_dict(spec)

    def test_it_makes_no_words(self, tmp_path):
        spec = self.spec(tmp_path)
        spec["output"] = {"write": "vocabulary", "path": str(tmp_path / "v")}
        with pytest.raises(vwkit.SpecError, match="agglomerative has no centers to make words of"):
            vwkit.Pipeline.from_dict(spec)

    def test_the_manifest_is_plain(self, tmp_path):
        run = vwkit.Pipeline.from_dict(self.spec(tmp_path)).run(tmp_path / "run")
        text = (run.path("clusterer") / "manifest.json").read_text()
        assert json.loads(text)["params"]["similarity"] == 0.5


def test_one_row_is_saved_and_loaded(tmp_path: Path) -> None:
    made = vwkit.create("clusterer", "agglomerative").fit(np.ones((1, 4), np.float32))
    made.save(tmp_path / "one")
    again: Any = vwkit.load(tmp_path / "one")
    assert again.labels.tolist() == made.labels.tolist() == [-1]
    again.min_size = 1
    assert again.labels.tolist() == [0]
