"""The specs that come with vwkit run; every page is complete, linked and up to date.

The fences of the pages themselves are run by docs/conftest.py: `pytest docs README.md`.
"""

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import vwkit
from vwkit.cli.new import jobs
from vwkit.outputs.words import read_words

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PLUGINS = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
# These have no wheels; the README has a line that leaves them out.
COMPILED = {"vwkit-annoy", "vwkit-hnswlib", "vwkit-pqkmeans"}


def script(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The specs ---------------------------------------------------------------------------------------

# What the small data need to be told; nothing else of a spec is changed.
SMALLER = {"oxford5k": ("clusterer.k=60", "clusterer.train_rows=800")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    script("make_data").make(folder)
    for job, text in jobs().items():
        (folder / f"{job}.yaml").write_text(text)
    return folder


def finished(data, job):
    """Run a spec of vwkit's, as a user would after `vwkit new`."""
    try:
        pipeline = vwkit.Pipeline.from_file(data / f"{job}.yaml", SMALLER.get(job, ()))
    except vwkit.SpecError as error:
        missing = set(re.findall(r"it comes with the package (\S+?):", str(error)))
        if not missing:
            raise
        pytest.skip(" and ".join(f"{job} needs ./plugins/{name}" for name in sorted(missing)))
    return pipeline.run(data / "runs" / job)


def check_vocabulary(data, run):
    words, items = read_words(data / "out/words")
    again = vwkit.load(data / "out/vocabulary").encode(vwkit.read(data / "descriptors.bvecs"))
    assert (again.toarray()[:, 0] == words.words).all()
    assert len(np.unique(words.words)) == 1000
    assert [item.id for item in items] == ["descriptors.bvecs"]


def check_approximate_vocabulary(data, run):
    assert vwkit.load(data / "out/vocabulary").codebook.shape == (1, 1000, 32)
    assert run.clusterer.assign.name == "hnsw"


def check_large_vocabulary(data, run):
    assert run.clusterer.name == "graph-kmeans"
    words, items = read_words(data / "out/words")
    assert len(np.unique(words.words)) == 1000
    assert [item.id for item in items] == ["descriptors.bvecs"]
    # What the graph said of the rows, and what the saved vocabulary says, may differ for a few.
    again = vwkit.load(data / "out/vocabulary").encode(vwkit.read(data / "descriptors.bvecs"))
    assert (again.toarray()[:, 0] == words.words).mean() > 0.9


def check_codes(data, run):
    codes = np.load(data / "out/codes.npy")
    assert codes.shape == (3000, 4)
    assert codes.dtype == np.uint8
    rows = vwkit.read(data / "descriptors.bvecs").toarray().astype(float)
    error = ((run.quantizer.decode(codes) - rows) ** 2).mean()
    assert error < 0.2 * rows.var(axis=0).mean()


def check_billion(data, run):
    codes = np.load(data / "out/codes.npy", mmap_mode="r")
    labels = np.load(data / "out/labels.npy", mmap_mode="r")
    assert (codes.shape, codes.dtype, labels.shape) == ((3000, 4), np.uint8, (3000,))
    assert len(np.unique(labels)) == 1000
    assert run.manifest["counts"]["descriptors"] == 3000
    # What the graph said of the rows, and what the saved vocabulary says, may differ for a few.
    words = vwkit.load(data / "out/vocabulary").encode(vwkit.read(data / "base.bvecs.gz"))
    assert (words.toarray()[:, 0] == labels).mean() > 0.9


def check_palette(data, run):
    with PIL.Image.open(data / "out/palette/picture.png") as picture:
        assert (picture.mode, picture.size) == ("P", (120, 90))
        assert len(picture.getcolors()) == 16
    assert (data / "out/palette/palette.html").stat().st_size > 0


def check_oxford5k(data, run):
    words, items = read_words(data / "out/words")
    assert words.offsets.tolist() == [0, 400, 400, 1100]
    assert items[2].id == "radcliffe_camera_000002.jpg"
    text = (data / "out/words/text/all_souls_000000.jpg.txt").read_text().split()
    assert text == ["400", *map(str, words.words[:400].tolist())]


def check_cnn_search(data, run):
    assert run.featurizer.dim == 48
    best = run.search(str(data / "photos/castle_left.jpg"), 3).items[0]
    assert {item.id for item in best} == {f"castle_{view}.jpg" for view in ("far", "left", "right")}
    lines = (data / "out/nearest.csv").read_text().splitlines()
    assert len(lines) == 13
    with PIL.Image.open(data / "out/alike.png") as picture:
        assert picture.width > 100


def check_photo_clusters(data, run):
    assert sorted(len(one.items) for one in run.clusters) == [2, 2, 2, 3]
    links = [path for path in (data / "out/clusters").rglob("*") if path.is_symlink()]
    assert len(links) == 12
    assert all(not os.path.isabs(os.readlink(link)) and link.exists() for link in links)
    alone = {path.name for path in (data / "out/clusters/not_clustered").iterdir()}
    assert alone == {item.id for item in run.unclustered}
    assert len((data / "out/clusters.csv").read_text().splitlines()) == 13
    for page in ("gallery", "dendrogram"):
        text = (data / f"out/{page}.html").read_text()
        assert all(item.id in text for item in run.items), page


def check_photo_clusters_colour(data, run):
    folders = (data / "out/by-colour/cluster_with_3").iterdir()
    places = [{path.name.partition("_")[0] for path in folder.iterdir()} for folder in folders]
    assert sorted(map(sorted, places)) == [["bridge"], ["castle"], ["harbour"], ["market"]]
    assert not (data / "out/by-colour/not_clustered").exists()
    for name in ("by-colour.png", "by-colour-tree.png"):
        with PIL.Image.open(data / "out" / name) as picture:
            assert picture.width > 100


def check_pq_vocabulary(data, run):
    assert run.clusterer.centers.shape == (1000, 4)
    words, items = read_words(data / "out/words")
    assert (words.words == run.clusterer.labels).all()
    assert len(np.unique(words.words)) == 1000
    assert [item.id for item in items] == ["descriptors.bvecs"]
    again = vwkit.load(data / "out/vocabulary").encode(vwkit.read(data / "descriptors.bvecs"))
    assert (again.toarray()[:, 0] == words.words).all()


def check_near_duplicates(data, run):
    page = (data / "out/duplicates.html").read_text()
    assert page.count('class="group"') == 4
    with (data / "out/duplicates.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    said = {(line["of"], line["item"]): line["words"] for line in lines}
    for place in ("bridge", "castle", "harbour", "market"):
        far, left, right = (f"{place}_{view}.jpg" for view in ("far", "left", "right"))
        assert said[far, left] == "crop (keeps 60 %)"
        assert said[far, right].startswith("rotated 8° counter-clockwise, crop")
    assert {line["group"] for line in lines} == {"1", "2", "3", "4"}


def check_vlad_search(data, run):
    assert run.featurizer.dim == 64 * 128
    assert run.index.dim < 12
    best = run.search(str(data / "photos/castle_left.jpg"), 3).items[0]
    assert {item.id for item in best} == {f"castle_{view}.jpg" for view in ("far", "left", "right")}
    assert len((data / "out/nearest.csv").read_text().splitlines()) == 13
    with PIL.Image.open(data / "out/alike.png") as picture:
        assert picture.width > 100


def check_retrieval(data, run):
    assert run.scores["queries"] == 12
    assert run.scores["mAP"] > 0.9
    with PIL.Image.open(data / "out/search.png") as picture:
        assert picture.width > 100


def check_search(data, run):
    best = run.search(str(data / "photos/castle_left.jpg"), 3).items[0]
    assert {item.id for item in best} == {f"castle_{view}.jpg" for view in ("far", "left", "right")}
    lines = (data / "out/nearest.csv").read_text().splitlines()
    assert len(lines) == 13
    assert "bridge_left.jpg" in lines[1]
    assert len(vwkit.load(data / "out/index")) == 12


def check_large_index(data, run):
    index = vwkit.load(data / "out/index")
    assert (index.name, index.nested.name, len(index)) == ("sharded", "usearch", 3000)
    rows = vwkit.read(data / "descriptors.bvecs").toarray()
    found = run.search(rows[[5, 2500]].astype(np.float32), 3)
    assert found.ids[:, 0].tolist() == [5, 2500]


def check_visual_search(data, run):
    assert [item.id for item in run.items[:2]] == ["BRI-1", "BRI-2"]
    assert run.items[0].metadata == {
        "file": "bridge_far.jpg",
        "sku": "BRI-1",
        "title": "The bridge, from afar",
        "price": 18.5,
        "category": "print",
    }
    best = run.search(str(data / "photos/castle_left.jpg"), 3).items[0]
    assert {item.id for item in best} == {"CAS-1", "CAS-2", "CAS-3"}
    cheap = run.search("CAS-1", 12, where="price < 4 and category == 'card'").items[0]
    assert {item.id for item in cheap if item} == {"BRI-2", "BRI-3", "CAS-2", "CAS-3"}
    assert len(vwkit.load(data / "out/index")) == 12


CHECKS = {
    name.removeprefix("check_").replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}


@pytest.mark.parametrize("job", sorted(jobs()))
def test_a_spec_runs_end_to_end(data, job):
    run = finished(data, job)
    assert (run.folder / "report.html").stat().st_size > 0
    CHECKS[job](data, run)


def test_every_spec_is_checked_shown_and_new():
    assert set(CHECKS) == set(jobs())
    shown = {path.stem: path for path in (DOCS / "specs").iterdir()}
    assert set(shown) == set(jobs())
    readme = (ROOT / "README.md").read_text()
    for job, text in jobs().items():
        assert shown[job].read_text() == text
        assert text.startswith("# "), f"`vwkit new` lists the first line of {job}"
        assert f"(docs/specs/{job}.yaml)" in readme


# The pages ---------------------------------------------------------------------------------------

FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"<!-- (not run|needs|file): (.+?) -->")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_is_run_or_says_why_not(page):
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    assert 2 * len(fences) == len(re.findall(r"^ *(```|~~~)", text, re.MULTILINE))
    for fence in fences:
        at = f"{page.name}:{text.count(chr(10), 0, fence.start()) + 1}"
        above = text[: fence.start()].rstrip("\n").rpartition("\n")[2]
        note = NOTE.fullmatch(above)
        assert note or not above.startswith("<!--"), f"{at}: {above}: not a note that is known"
        assert not note or text[: fence.start()].endswith(f"{above}\n")
        language = fence["language"]
        assert language in ("python", "yaml", "toml", "console", "sh", "text"), (
            f"{at}: {language!r}"
        )
        if language == "sh":
            assert note, f"{at}: say why it is not run, or write `console` and `$ `"
            assert note[1] == "not run", at
        if note and note[1] == "needs":
            assert set(note[2].split(", ")) <= {*PLUGINS, "fsspec"}, at
        if language == "console":
            assert fence["body"].startswith("$ "), f"{at}: a command begins with `$ `"


def test_there_are_examples_to_run():
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(FENCE.findall(text)) for text in texts) > 60
    assert sum(text.count("](") for text in texts) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles
            }
            assert anchor in slugs, f"{page.name}: {link}"


def test_the_index_names_every_page():
    index = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


def test_the_page_of_backends_is_up_to_date():
    """A plugin that is not installed cannot be compared; its text must be there nevertheless."""
    make = script("make_backends")
    page = make.PAGE.read_text(encoding="utf-8")
    found = make.sections()
    assert len(found) > 20
    remake = "run `python docs/make_backends.py` with all plugins installed"
    for (role, name), text in found.items():
        part = page.partition(f"\n## {role}\n")[2].partition("\n## ")[0]
        assert f"\n{text}" in f"{part}\n", f"{role} {name}: {remake}"
    mentioned = {package for package in PLUGINS if f"Package `{package}`" in page}
    assert mentioned == PLUGINS, remake
    if all(importlib.util.find_spec(name.replace("-", "_")) for name in PLUGINS):
        assert page == make.page(), remake


def test_the_readme_tells_how_to_install():
    readme = (ROOT / "README.md").read_text()
    without = re.search(r'pip install "\.\[testing\]"((?: \./plugins/[\w-]+)+)', readme)
    named = {part.removeprefix("./plugins/") for part in without[1].split()}
    assert named == PLUGINS - COMPILED
    picture = re.search(r"!\[.+\]\((docs/images/.+?)\)", readme)[1]
    assert (ROOT / picture).stat().st_size < 300_000


def test_the_package_of_the_tutorial_is_as_short_as_it_says():
    text = (DOCS / "write-a-backend.md").read_text(encoding="utf-8")
    files = re.findall(r"<!-- file: [^\n]+ -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert "figures.py" in text
    files = files[:-1]  # the last one measures; it is no part of the package
    assert len(files) == 3
    lines = sum(bool(line.strip()) for file in files for line in file.splitlines())
    assert lines < 40
    assert f"{lines} lines" in text
    assert f"{lines} lines" in (ROOT / "README.md").read_text()


# What an approximate index of the page promises, and what one must be given.
DECLARED = {
    "After": ['params = {"first": {"use": "l2-norm"}}'],
    "HalfHearted": ["min_recall = 0.4"],
}
SUITED = ("Clusterer", "Featurizer", "Index", "Quantizer", "Transform")


def test_the_backends_of_the_tutorial_pass_the_suite(tmp_path):
    """What is shown to be copied keeps the contract, too."""
    text = (DOCS / "write-a-backend.md").read_text(encoding="utf-8")
    fences = [found["body"] for found in FENCE.finditer(text) if found["language"] == "python"]
    source = "\n\n".join(one for one in fences if "@vwkit.backend(" in one)
    found = re.findall(rf"^class (\w+)\(vwkit\.({'|'.join(SUITED)})\):$", source, re.MULTILINE)
    assert {role for _, role in found} == set(SUITED)
    found.append(("OddColour", "Featurizer"))
    tests = ["import vwkit.testing"]
    for name, role in found:
        tests += [f"class Test{name}(vwkit.testing.{role}Tests):", f"    backend = {name}"]
        tests += [f"    {line}" for line in DECLARED.get(name, ())]
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_page.py").write_text("\n".join([source, *tests, ""]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b\d{2,} passed", done.stdout), done.stdout


def test_every_command_and_key_is_explained():
    from vwkit.cli.main import _COMMANDS
    from vwkit.spec import KEYS

    titles = re.findall(r"^## (.+)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(_COMMANDS)
    specs = (DOCS / "specs.md").read_text()
    for key in KEYS:
        assert f"`{key}`" in specs, key
