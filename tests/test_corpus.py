"""Inputs that once failed: each comes back as an error of vwkit's own, or is read.

Files of ``tests/corpus/<target>/`` are inputs of a target of `python -m benchmarks fuzz`; what needs an
artifact of this machine's libraries is made here.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import vwkit
from benchmarks.fuzzing.saved import files_of, sealed, split, use
from benchmarks.fuzzing.target import Case, judge, targets
from vwkit.errors import ArtifactError, VwkitError

CORPUS = Path(__file__).with_name("corpus")
TARGETS = targets()
INPUTS = sorted(CORPUS.glob("*/*.bin"))


def test_the_corpus_is_there():
    assert len(INPUTS) > 10
    assert {path.parent.name for path in INPUTS} <= TARGETS.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_past_failures(path, tmp_path):
    target = TARGETS[path.parent.name]
    if target.missing():
        pytest.skip(f"needs {target.missing()}")
    Case(target, tmp_path / "case")(path.read_bytes())


# Artifacts --------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).integers(0, 255, (40, 6)).astype(np.float32)


def fitted(role, name, **params):
    if (role, name) not in {(r, n) for r, names in vwkit.backends().items() for n in names}:
        pytest.skip(f"{name} is not installed")
    made = vwkit.create(role, name, **params)
    return made.build(ROWS) if role == "index" else made.fit(ROWS)


def changed(backend, folder, change):
    """Save, change manifest and files, make the checksums right, and load."""
    backend.save(folder / "whole")
    files = split(folder / "whole")
    manifest = json.loads(files["manifest.json"])
    change(manifest, files)
    files["manifest.json"] = json.dumps(manifest).encode()
    sealed(files, folder / "changed")
    return vwkit.load(folder / "changed")


def refused(backend, folder, change, match):
    with pytest.raises(ArtifactError, match=match) as caught:
        changed(backend, folder, change)
    assert "\n" not in str(caught.value)


def array_of(files, name):
    return next(one for one in files if one.startswith(f"{name}-"))


def npy(array):
    import io

    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def put(name, array):
    def change(manifest, files):
        files[array_of(files, name)] = npy(array)

    return change


@pytest.mark.parametrize(
    ("name", "array", "match"),
    [
        ("_vectors", np.zeros((3, 6), np.float32), "vectors are float32 of shape"),
        ("_vectors", np.zeros((40, 5), np.float32), "vectors are float32 of shape"),
        ("_vectors", np.zeros((40, 6), "<U3"), "vectors are <U3"),
    ],
)
def test_an_exact_index_of_other_vectors(tmp_path, name, array, match):
    refused(fitted("index", "exact"), tmp_path, put(name, array), match)


def test_an_exact_index_with_other_living_rows(tmp_path):
    index = fitted("index", "exact").remove([3])
    refused(index, tmp_path, put("_living", np.array([-5])), "living are int64 of shape")


@pytest.mark.parametrize(
    "dead", [np.array([40]), np.array([-1]), np.array([3, 3]), np.array([0.5])]
)
def test_dead_rows_that_are_none(tmp_path, dead):
    index = fitted("index", "exact").remove([3])
    refused(index, tmp_path, put("core.dead", dead), "dead")


def test_rows_beyond_counting(tmp_path):
    def change(manifest, files):
        manifest["core"]["rows"] = 1 << 60

    refused(fitted("index", "exact"), tmp_path, change, "rows is")


def sparse_index():
    return vwkit.create("index", "inverted").build(vwkit.Sparse.from_dense(ROWS))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("_items", np.full(240, 99, np.int32)),
        ("_pointers", np.array([0, 300, 240, 240, 240, 240, 240])),
        ("_pointers", np.array([0, 80, 20, 240, 240, 240, 240])),
        ("_values", np.full(240, np.nan, np.float32)),
        ("_rows_held", np.array(1 << 40)),
    ],
)
def test_an_inverted_index_that_points_elsewhere(tmp_path, name, array):
    index = sparse_index()
    sizes = {"_items": len(index._items), "_values": len(index._values)}
    array = array[: sizes.get(name)] if array.ndim else array
    refused(index, tmp_path, put(name, array), "damaged")


def test_a_quantizer_without_its_codebook(tmp_path):
    def change(manifest, files):
        manifest["arrays"] = {}

    refused(fitted("quantizer", "pq", m=2, ks=4), tmp_path, change, "codebook")


@pytest.mark.parametrize("shape", [(2, 4, 2), (3, 4, 3), (2, 5, 3), (24,)])
def test_a_quantizer_with_another_codebook(tmp_path, shape):
    other = put("codebook", np.zeros(shape, np.float32))
    refused(fitted("quantizer", "pq", m=2, ks=4), tmp_path, other, "codebook")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("centers", np.zeros((4, 6), np.float32)),
        ("centers", np.zeros((5, 7), np.float32)),
        ("centers", np.full((5, 6), np.inf, np.float32)),
        ("labels", np.full(40, 5, np.int32)),
        ("labels", np.zeros((4, 10), np.int32)),
    ],
)
def test_a_clusterer_with_other_arrays(tmp_path, name, array):
    refused(fitted("clusterer", "lloyd", k=5), tmp_path, put(name, array), name)


@pytest.mark.parametrize("name", ["components", "mean", "explained"])
def test_a_transform_with_other_arrays(tmp_path, name):
    refused(fitted("transform", "pca", dim=3), tmp_path, put(name, np.zeros((9, 9))), name)


@pytest.mark.parametrize("name", ["transform", "_transform", "whiten", "_fitted", "dtypes", "a b"])
def test_arrays_in_the_place_of_methods_and_parameters(tmp_path, name):
    def change(manifest, files):
        manifest["arrays"][name] = manifest["arrays"]["mean"]

    refused(fitted("transform", "pca", dim=3), tmp_path, change, "no name of a saved array")


def test_a_child_in_the_place_of_a_method(tmp_path):
    vocabulary = vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 3})

    def change(manifest, files):
        manifest["children"]["encode"] = manifest["children"]["clusterer"]

    refused(vocabulary.fit(ROWS), tmp_path, change, "no place for a encode")


def test_a_vocabulary_that_lost_its_words(tmp_path):
    def change(manifest, files):
        child = f"{manifest['children']['clusterer']['folder']}/manifest.json"
        inner = json.loads(files[child])
        inner["fitted"] = False
        files[child] = json.dumps(inner).encode()

    vocabulary = vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 3})
    refused(vocabulary.fit(ROWS), tmp_path, change, "its clusterer has no centers")


def test_a_manifest_that_names_a_folder_elsewhere(tmp_path):
    fitted("clusterer", "lloyd", k=3).save(tmp_path / "elsewhere")

    def change(manifest, files):
        manifest["children"] = {}
        manifest["params"]["clusterer"] = str(tmp_path / "elsewhere")

    vocabulary = vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 3})
    refused(vocabulary.fit(ROWS), tmp_path, change, "names a path")


def test_a_parameter_with_a_name_of_two_lines(tmp_path):
    def change(manifest, files):
        manifest["params"]["whi\nten"] = True

    refused(
        fitted("transform", "pca", dim=3), tmp_path, change, "whi ten: pca has no such parameter"
    )


def test_a_native_backend_without_its_files(tmp_path):
    def change(manifest, files):
        del manifest["native"]

    refused(fitted("index", "usearch"), tmp_path, change, "lacks the files of its kind")


def test_a_native_file_that_the_manifest_does_not_name(tmp_path):
    index = fitted("index", "hnsw", threads=1)
    index.save(tmp_path / "elsewhere")
    index.save(tmp_path / "whole")
    files = split(tmp_path / "whole")
    name = next(one for one in files if one.endswith(".hnsw"))
    manifest = json.loads(files["manifest.json"])
    del manifest["files"][name]
    rest = {key: one for key, one in files.items() if key != name}
    sealed({**rest, "manifest.json": json.dumps(manifest).encode()}, tmp_path / "x")
    (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "x" / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(ArtifactError, match="not named in the manifest"):
        vwkit.load(tmp_path / "x")


# What hnswlib reads without looking -------------------------------------------------------------

HEAD = struct.Struct("=6Q i I 3Q d Q")
FIELDS = (
    "first", "room", "count", "step", "label", "vector", "level", "entry", "upper", "most", "m",
    "mult", "ef",
)  # fmt: skip


def hnsw(tmp_path, edit):
    """Load an index whose file was changed by ``edit(header, bytes)``."""
    index = fitted("index", "hnsw", M=4, threads=1).remove([7])

    def change(manifest, files):
        name = next(one for one in files if one.endswith(".hnsw"))
        data = bytearray(files[name])
        head = dict(zip(FIELDS, HEAD.unpack(data[: HEAD.size]), strict=True))
        edit(head, data)
        data[: HEAD.size] = HEAD.pack(*head.values())
        files[name] = bytes(data)

    loaded = changed(index, tmp_path, change)
    return loaded.search(ROWS, 5)


def test_an_hnsw_file_that_is_not_changed(tmp_path):
    assert hnsw(tmp_path, lambda head, data: None).ids.shape == (40, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("first", 64), ("entry", 40), ("level", 9), ("upper", 9), ("mult", 1e9), ("mult", np.nan)],
)
def test_an_hnsw_header_of_another_graph(tmp_path, field, value):
    def edit(head, data):
        head[field] = value

    with pytest.raises(ArtifactError, match="damaged"):
        hnsw(tmp_path, edit)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("links", 9),  # more than there is room for
        ("links", 1 << 16),  # a vector that is removed, and not known to be
        ("first link", 40),  # a row that there is not
        ("label", 3),  # given twice
        ("label", 1 << 40),
        ("list", 4),  # no whole list
        ("list", 20 << 20),
    ],
)
def test_an_hnsw_graph_that_leads_elsewhere(tmp_path, place, value):
    def edit(head, data):
        at = HEAD.size + 5 * head["step"]
        end = HEAD.size + 40 * head["step"]
        at = {"links": at, "first link": at + 4, "label": at + head["label"], "list": end}[place]
        width = 8 if place == "label" else 4
        data[at : at + width] = value.to_bytes(width, "little")

    with pytest.raises(ArtifactError, match="damaged"):
        hnsw(tmp_path, edit)


def test_an_hnsw_list_above_that_leads_below(tmp_path):
    index = fitted("index", "hnsw", M=2, threads=1)

    def change(manifest, files):
        name = next(one for one in files if one.endswith(".hnsw"))
        data = bytearray(files[name])
        head = dict(zip(FIELDS, HEAD.unpack(data[: HEAD.size]), strict=True))
        assert head["level"] > 0
        below = HEAD.size + 40 * head["step"]
        levels, at = [], below
        for _ in range(40):
            levels.append(int.from_bytes(data[at : at + 4], "little") // 12)
            at += 4 + 12 * levels[-1]
        tall, flat = levels.index(max(levels)), levels.index(0)
        at = below + sum(4 + 12 * level for level in levels[:tall]) + 4
        data[at : at + 8] = (1).to_bytes(4, "little") + flat.to_bytes(4, "little")
        files[name] = bytes(data)

    refused(index, tmp_path, change, "not a graph")


# Others -----------------------------------------------------------------------------------------


def test_a_compressed_entry_of_the_cache_is_not_unpacked(tmp_path):
    from vwkit.cache import Cache

    cache = Cache(tmp_path / "cache")
    cache.keep_features("a" * 40, "b" * 40, {"x": np.zeros(3)})
    assert cache.features("a" * 40, "b" * 40)["x"].shape == (3,)
    (path,) = (tmp_path / "cache").rglob("*.npz")
    np.savez_compressed(path, x=np.zeros(1 << 20))
    assert cache.features("a" * 40, "b" * 40) is None
    assert not path.exists()
    cache.close()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"kind": "run", "stages": {}, "format": 1e999}'])
def test_a_run_whose_manifest_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(VwkitError, match="not the manifest of a run"):
        vwkit.Run.open(tmp_path)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\0", ".hidden", "\ud800"])
def test_a_journal_that_names_no_part_of_the_run(tmp_path, name):
    from vwkit.run_folder import finish_commit

    inner = tmp_path / "run" / ".run"
    (inner / "next").mkdir(parents=True)
    (inner / "next" / "manifest.json").write_text("{}")
    (inner / "commit.json").write_text(json.dumps({"new": ["manifest.json"], "old": [name]}))
    with pytest.raises(ArtifactError, match="damaged"):
        finish_commit(tmp_path / "run")
    assert (inner / "next" / "manifest.json").exists()


def test_a_long_error_is_shown_in_short():
    from vwkit.cli.main import _line
    from vwkit.errors import DataError

    shown = _line(DataError(f"x.npy: the name {'a' * 100_000} is long"))
    assert len(shown) < 3000
    assert shown.startswith("error: x.npy")
    assert shown.endswith("is long")


def test_what_is_whole_passes(tmp_path):
    files = files_of("corpus-pq", lambda: fitted("quantizer", "pq", m=2, ks=4))
    sealed(files, tmp_path / "x")
    judge(lambda: use(vwkit.load(tmp_path / "x")))
