"""What cannot fit into the memory that a run may use is refused before it begins."""

import gc
import re
import weakref

import numpy as np
import pytest

import vwkit
from tests.helpers import dump, picture
from vwkit.cache import Cache
from vwkit.cli.main import main
from vwkit.extraction import batch_features
from vwkit.planning.making import check_budget, size_text
from vwkit.types import Item

ROWS, DIM = 300_000, 32


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Rows that take 38 MB as float32, and a quarter of that as they are."""
    path = tmp_path_factory.mktemp("wide") / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (ROWS, DIM))[:] = 1
    return path


def spec_of(path, **slots):
    return {"vwkit": 1, "vectors": {"path": str(path)}, **slots}


def refused(spec):
    with pytest.raises(vwkit.RunError) as caught:
        check_budget(vwkit.Pipeline.from_dict(spec).spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_array_of_all_rows_must_fit(wide):
    text = refused(spec_of(wide, index={"use": "exact"}, run={"memory": "20MB"}))
    assert "index (exact) needs at least 38 MB" in text
    assert "300,000 rows × 32" in text
    assert "run.memory is 20 MB" in text
    assert "stream" in text


def test_the_same_is_fine_with_more_memory_or_without_a_word_about_it(wide):
    for run in ({"memory": "39MB"}, {}):
        check_budget(vwkit.Pipeline.from_dict(spec_of(wide, index={"use": "exact"}, run=run)).spec)


def test_what_streams_is_fine(wide):
    spec = spec_of(wide, clusterer={"use": "lloyd", "k": 10}, run={"memory": "20MB"})
    check_budget(vwkit.Pipeline.from_dict(spec).spec)


def test_centers_must_fit(wide):
    text = refused(spec_of(wide, clusterer={"use": "lloyd", "k": 100_000}, run={"memory": "20MB"}))
    assert text.startswith(("clusterer (lloyd)", "run.memory: clusterer (lloyd)"))
    assert "a smaller k" in text


def test_fewer_rows_fit(wide):
    spec = spec_of(wide, index={"use": "exact"}, run={"memory": "20MB"})
    spec["vectors"]["limit"] = 100_000
    check_budget(vwkit.Pipeline.from_dict(spec).spec)


def test_a_small_budget_is_about_chunks_and_refuses_nothing_small(wide):
    spec = spec_of(wide, index={"use": "exact"}, run={"memory": "1kB"})
    spec["vectors"]["limit"] = 1000
    check_budget(vwkit.Pipeline.from_dict(spec).spec)


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_every_command_says_it_in_one_line_with_the_place(wide, tmp_path, capsys, command):
    lines = [
        "vwkit: 1",
        f"vectors: {{path: {wide}}}",
        "index: {use: exact}",
        "run:",
        "  memory: 20MB",
    ]
    file = tmp_path / "spec.yaml"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit) as caught:
        main([command, str(file), "--out", str(tmp_path / "run")][: 2 if command == "check" else 4])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert re.match(rf"error: {re.escape(str(file))}:5:\d+: run\.memory: index \(exact\)", said), (
        said
    )
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_in_python_refuses_it_too(wide, tmp_path):
    spec = spec_of(wide, index={"use": "exact"}, run={"memory": "20MB"})
    with pytest.raises(vwkit.RunError, match="index"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_in_the_cache_needs_no_memory(wide, tmp_path):
    spec = spec_of(wide, index={"use": "exact"})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    check_budget(vwkit.Pipeline.from_dict({**spec, "run": {"memory": "20MB"}}).spec)


def test_data_that_cannot_be_read_are_told_elsewhere(tmp_path):
    path = tmp_path / "x.fvecs"
    path.write_bytes(b"\x04\x00\x00\x00" + bytes(15))
    spec = dump(tmp_path / "spec.yaml", spec_of(path, index={"use": "exact"}))
    check_budget(vwkit.Pipeline.from_file(spec).spec)


def test_sizes_as_text():
    assert [size_text(n) for n in (0, 999, 1000, 9_940_000, 12_000_000, 3.2e12, 5e15)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "9.9 MB",
        "12 MB",
        "3.2 TB",
        "5000 TB",
    ]


# What follows the budget --------------------------------------------------------------------------


def test_labels_go_to_a_file_where_they_are_many_for_the_budget(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (5000, 4)).astype(np.uint8)
    fitted = []
    for memory in (1 << 30, 100_000):
        with vwkit.use_job(vwkit.Job(threads=2, memory=memory)):
            fitted.append(vwkit.create("clusterer", "lloyd", k=5, iterations=3).fit(rows))
    wide, narrow = fitted
    assert not isinstance(wide.labels, np.memmap)
    assert isinstance(narrow.labels, np.memmap)
    assert (wide.labels == narrow.labels).all()
    assert (wide.centers == narrow.centers).all()
    narrow.save(tmp_path / "saved")
    assert (vwkit.load(tmp_path / "saved").labels == wide.labels).all()


@pytest.mark.parametrize("name", ["graph-kmeans", "graph-pqkmeans"])
def test_graph_clusterers_look_at_blocks_and_give_the_same(monkeypatch, name):
    passes = pytest.importorskip("vwkit_numba.passes")
    rows = np.random.default_rng(0).integers(0, 256, (5000, 8)).astype(np.uint8)
    options = {}
    if name == "graph-pqkmeans":
        options["quantizer"] = vwkit.create("quantizer", "pq", m=4, ks=16).fit(rows)
        rows = np.asarray(options["quantizer"].encode(rows))
    fitted = []
    for step, memory in ((5000, 1 << 30), (700, 100_000)):
        monkeypatch.setattr(passes, "most_rows", lambda _, step=step: step)
        with vwkit.use_job(vwkit.Job(threads=2, memory=memory)):
            fitted.append(vwkit.create("clusterer", name, k=40, iterations=4).fit(rows, **options))
    wide, narrow = fitted
    assert isinstance(narrow.labels, np.memmap)
    assert (wide.labels == narrow.labels).all()
    assert (wide.centers == narrow.centers).all()


def test_features_are_let_go_of_picture_by_picture(tmp_path):
    items = []
    for i in range(12):
        path = tmp_path / f"{i}.png"
        picture(i if i != 9 else 3).save(path)  # the fourth and the tenth are the same
        items.append(Item(i, path.name, str(path)))
    hashes = [f"{i if i != 9 else 3:064d}" for i in range(12)]
    featurizer = vwkit.create("featurizer", "pixels")
    cache = Cache(tmp_path / "cache")
    seen, alive = [], []
    with vwkit.use_job(vwkit.Job(threads=1)):
        for found in batch_features(featurizer, "k" * 32, items, hashes, cache):
            seen.append(found.vectors.sum())
            alive.append(weakref.ref(found.vectors))
            del found
            gc.collect()
            # Those ahead, the one here, and one that comes again.
            assert sum(one() is not None for one in alive) <= 5
    assert len(seen) == 12
    assert seen[9] == seen[3]
    assert len(set(seen)) == 11
