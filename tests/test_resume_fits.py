"""Fits that are cut short behind any checkpoint go on to the same bytes; foreign ones are not used."""

import itertools

import numpy as np
import pytest

import vwkit
from tests.helpers import blobs
from vwkit import jobs
from vwkit.builtin import lloyd_fit, seeding, transforms

ROWS = blobs(700, 8, 20)


@pytest.fixture(autouse=True)
def always_kept(monkeypatch):
    monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
    for module in (lloyd_fit, seeding, transforms):
        monkeypatch.setattr(module, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(seeding, "_SAMPLE_AT_LEAST", 100)
    monkeypatch.setattr(transforms, "_BLOCK", 64)


def shared(counted):
    """Return a class of jobs that stop behind the checkpoint of that number, in whatever part."""
    seen = itertools.count(1)

    class Stopping(vwkit.Job):
        def checkpoint(self, step, arrays):
            super().checkpoint(step, arrays)
            if self.folder is not None and next(seen) == counted:
                raise vwkit.Interrupted("stop")

        def within(self, stage, folder=None):
            part = super().within(stage, folder)
            part.__class__ = Stopping
            return part

    return Stopping


CASES = {
    "lloyd within a pass": (
        "clusterer",
        "lloyd",
        {"k": 20, "iterations": 3, "tolerance": 0.0},
        ROWS,
        ("centers", "labels", "objective", "changed"),
    ),
    "lloyd with weights and floats": (
        "clusterer",
        "lloyd",
        {"k": 9, "iterations": 2, "init": "random"},
        ROWS.astype(np.float32) / 7,
        ("centers", "labels", "objective", "changed"),
    ),
    "lloyd with an index": (
        "clusterer",
        "lloyd",
        {"k": 9, "iterations": 2, "assign": {"use": "exact"}},
        ROWS,
        ("centers", "labels", "objective", "changed"),
    ),
    "pq": ("quantizer", "pq", {"m": 4, "ks": 8, "iterations": 2}, ROWS[:150], ("codebook",)),
    "breathing": (
        "clusterer",
        "breathing-kmeans",
        {"k": 6, "iterations": 7, "tolerance": 0.0},
        ROWS[:, :3],
        ("centers", "labels", "objective"),
    ),
    "pca": ("transform", "pca", {"dim": 3}, ROWS, ("mean", "components", "explained")),
}


def fitted(case, folder=None, job=vwkit.Job):
    role, name, params, rows, attributes = CASES[case]
    weights = {}
    if "weights" in case:
        weights = {"weights": np.random.default_rng(1).random(len(rows))}
    backend = vwkit.create(role, name, **params)
    with vwkit.use_job(job(threads=1, memory=1 << 16, folder=folder)):
        backend.fit(rows, **weights)
    return [np.asarray(getattr(backend, one)).tobytes() for one in attributes]


@pytest.mark.parametrize("case", CASES)
def test_behind_any_checkpoint_the_same_bytes(case, tmp_path):
    whole = fitted(case)
    stops = 0
    for stop in itertools.count(1):
        folder = tmp_path / str(stop)
        try:
            fitted(case, folder, shared(stop))
        except vwkit.Interrupted:
            assert fitted(case, folder) == whole, stop
            stops += 1
        else:
            break
    assert stops > 5


@pytest.mark.parametrize("case", CASES)
def test_cut_again_and_again_it_ends(case, tmp_path):
    whole = fitted(case)
    for _ in range(200):
        try:
            found = fitted(case, tmp_path, shared(2))
        except vwkit.Interrupted:
            continue
        assert found == whole
        return
    raise AssertionError("it never got on")


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_of_something_else_are_not_used(case, tmp_path):
    whole = fitted(case)
    fitted(case, tmp_path / "own")
    kept = sorted(path for path in (tmp_path / "own").rglob("step-*.npz"))
    assert kept
    for other, change in enumerate(
        (
            lambda arrays: {},
            lambda arrays: {**arrays, "more": np.zeros(3)},
            lambda arrays: {name: array[:0] for name, array in arrays.items()},
            lambda arrays: {name: array.astype(np.complex64) for name, array in arrays.items()},
            lambda arrays: {name: array[None] for name, array in arrays.items()},
        )
    ):
        folder = tmp_path / str(other)
        for path in kept:
            part = folder / path.parent.relative_to(tmp_path / "own")
            step, arrays = vwkit.Job(folder=path.parent).resume()
            vwkit.Job(folder=part).checkpoint(step, change(arrays))
        assert fitted(case, folder) == whole, other


def test_files_that_are_no_checkpoints_are_left_alone(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "step-last.npz").write_bytes(b"mine")
    (folder / "step-000000007.npz").mkdir()
    (folder / "step-000000008.npz").symlink_to(tmp_path / "nowhere")
    with (folder / "step-000000009.npz").open("wb") as file:
        file.truncate(1 << 40)  # a hole of a terabyte
    job = vwkit.Job(folder=folder)
    assert job.resume() is None
    for step in (1, 2, 3):
        job.checkpoint(step, {"a": np.arange(step)})
    step, arrays = vwkit.Job(folder=folder).resume()
    assert (step, arrays["a"].tolist()) == (3, [0, 1, 2])
    job.forget()
    assert (folder / "step-last.npz").read_bytes() == b"mine"
    assert (folder / "step-000000007.npz").is_dir()


def test_headers_that_claim_more_than_there_is_take_no_memory(tmp_path):
    import zipfile

    def claimed(name, header, method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / name, "w", method) as archive:
            archive.writestr("a.npy", header)
            archive.writestr("__arrays__.npy", header)

    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    claimed("step-000000001.npz", header)
    claimed("step-000000002.npz", header + bytes(1 << 24), zipfile.ZIP_DEFLATED)
    assert vwkit.Job(folder=tmp_path).resume() is None


def test_large_arrays_are_mapped_and_can_be_written_to(tmp_path, monkeypatch):
    from vwkit import checkpoints

    monkeypatch.setattr(checkpoints, "_MAPPED_FROM", 100)
    given = {"a": np.arange(100.0).reshape(20, 5), "b": np.asfortranarray(np.ones((9, 9)))}
    vwkit.Job(folder=tmp_path).checkpoint(4, given)
    for _ in range(2):
        step, arrays = vwkit.Job(folder=tmp_path).resume()
        assert step == 4
        for name, array in given.items():
            assert (arrays[name] == array).all()
            assert arrays[name].flags.aligned
            arrays[name][:] = 0  # the file keeps what it has
