"""The command line: what it prints, its exit statuses, and that errors are one clear line."""

import importlib
import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import vwkit.demo
from tests.helpers import bag_spec, blobs, dump, photo_folder, vector_spec
from vwkit.cli.main import _COMMANDS
from vwkit.cli.main import main as entry


@pytest.fixture
def vw(capsys, monkeypatch, tmp_path):
    """Call the command line in this process; give status, stdout and stderr lines."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        with pytest.raises(SystemExit) as caught, warnings.catch_warnings():
            warnings.simplefilter("always")
            entry([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return caught.value.code, out.splitlines(), err.splitlines()

    return call


@pytest.fixture
def photo_run(tmp_path, vw):
    truth = photo_folder(tmp_path / "photos")
    evaluate = {"protocol": "groups", "groundtruth": str(truth), "exclude_query": True}
    dump(tmp_path / "s.yaml", bag_spec(tmp_path / "photos", evaluate=evaluate))
    assert vw("run", "s.yaml", "--quiet")[0] == 0
    return tmp_path / "runs/s"


def test_help_lists_every_verb_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from vwkit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'PIL', 'yaml', 'rich', 'pluggy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in _COMMANDS:
        assert f"  {verb} " in done.stdout


@pytest.mark.parametrize("verb", sorted(_COMMANDS))
def test_every_verb_has_help(vw, verb):
    status, out, _ = vw(verb, "--help")
    assert status == 0
    assert out[0].startswith("Usage: vwkit")


def test_run_prints_what_came_out(vw, tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/bad.png").write_bytes(b"x")
    out = {"write": "words", "path": "w"}
    dump(tmp_path / "s.yaml", bag_spec(tmp_path / "photos", output=out))
    status, out, err = vw("run", "s.yaml")
    assert status == 0
    assert out[0].startswith("7 items, 6 ok, 1 skipped")
    assert out[-1] == f"report: {tmp_path / 'runs/s/report.html'}"
    assert "featurizer.vocabulary …" in err
    assert any(line.startswith("warning: 1 of 7 items were skipped") for line in err)
    assert (tmp_path / "w/words.npy").exists()
    status, out, _ = vw("run", "s.yaml", "--json", "--quiet", "--set", "featurizer.vocabulary.k=3")
    assert json.loads("\n".join(out))["counts"]["words"] == 3


def test_exit_statuses(vw, tmp_path):
    dump(tmp_path / "s.yaml", {"vwkit": 1, "vectors": {"path": "x.npy"}})
    status, _, err = vw("run", "s.yaml")
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("s.yaml:1:")
    rows = blobs(dtype=np.float32)
    rows[5, 1] = np.inf
    vwkit.write(tmp_path / "x.npy", rows)
    dump(tmp_path / "s.yaml", vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3}))
    status, _, err = vw("run", "s.yaml", "--quiet")
    assert (status, len(err)) == (1, 1)
    assert "row 5, column 1" in err[0]
    assert vw("run", "s.yaml", "--nonsense")[0] == 2
    assert vw("fly")[0] == 2
    assert vw("run", "missing.yaml")[0] == 2
    assert vw("search", "nowhere", "x")[0] == 2


def test_a_truncated_file_is_told_with_its_row(vw, tmp_path):
    vwkit.write(tmp_path / "x.bvecs", blobs(rows=40))
    data = (tmp_path / "x.bvecs").read_bytes()
    (tmp_path / "x.bvecs").write_bytes(data[:-3])
    spec = {"vwkit": 1, "vectors": {"path": "x.bvecs"}, "clusterer": {"use": "lloyd", "k": 3}}
    dump(tmp_path / "s.yaml", spec)
    status, _, err = vw("run", "s.yaml", "--quiet")
    assert (status, len(err)) == (1, 1)
    assert "x.bvecs" in err[0]
    assert "39" in err[0]
    assert vw("inspect", "x.bvecs")[0] == 1


def test_check(vw, tmp_path):
    dump(tmp_path / "s.yaml", vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3}))
    assert vw("check", "s.yaml") == (0, ["s.yaml: fine"], [])
    status, _, err = vw("check", "s.yaml", "--set", "clusterer.kk=4")
    assert status == 2
    assert err[0].startswith("--set clusterer.kk: lloyd has no such parameter")


def test_search_evaluate_and_report(vw, photo_run):
    status, out, _ = vw("search", photo_run, "g1/c0.png", "photos/g0/c1.png", "-k", 2)
    assert status == 0
    assert out[0] == "g1/c0.png"
    assert out[1].split()[::2] == ["1", "g1/c0.png"]
    assert out[3] == "photos/g0/c1.png"
    status, out, err = vw("search", photo_run, "g1/c0.png", "-k", 1, "--json", "--html", "p.html")
    assert json.loads("\n".join(out))[0]["matches"][0]["id"] == "g1/c0.png"
    assert err == ["page: p.html"]
    assert "<html" in (photo_run.parents[1] / "p.html").read_text()
    status, out, _ = vw("evaluate", photo_run)
    assert (status, out[-1]) == (0, "mAP 1.000")
    status, out, _ = vw("evaluate", photo_run, "--include-query", "--json")
    assert json.loads("\n".join(out))["queries"] == 6
    (photo_run / "report.html").unlink()
    assert vw("report", photo_run)[0] == 0
    assert (photo_run / "report.html").exists()
    status, _, err = vw("search", photo_run, "no-such.png")
    assert (status, len(err)) == (2, 1)
    assert vw("evaluate", photo_run, "--groundtruth", "none.csv")[0] == 2


def test_inspect_and_convert(vw, photo_run, tmp_path):
    vwkit.write(tmp_path / "x.bvecs", blobs(rows=50))
    status, out, _ = vw("convert", "x.bvecs", "x.npy")
    assert (status, out) == (0, ["x.npy: 50 rows"])
    for path, said in [("x.npy", "50"), (photo_run, "6"), (photo_run / "index", "inverted")]:
        status, out, _ = vw("inspect", path, "--json")
        assert status == 0
        assert said in "".join(out)
    assert vw("inspect", tmp_path)[0] == 1


def test_backends_and_schema(vw):
    status, out, _ = vw("backends", "index")
    assert status == 0
    assert out[0] == "index"
    assert any("exact" in line for line in out)
    status, out, _ = vw("backends", "clusterer", "lloyd")
    assert any(line.strip().startswith("k: whole number > 0 (required)") for line in out)
    listed = json.loads("\n".join(vw("backends", "--json")[1]))["backends"]
    assert all(one["summary"] for one in listed)
    assert vw("backends", "indx")[0] == 2
    assert vw("backends", "index", "exat")[0] == 2
    assert json.loads("\n".join(vw("schema")[1]))["title"] == "vwkit spec"


def test_new_prints_specs(vw):
    _, out, _ = vw("new")
    assert any(line.startswith("retrieval") for line in out)
    status, out, _ = vw("new", "retrieval")
    assert (status, out[1]) == (0, "vwkit: 1")
    assert vw("new", "coffee")[0] == 2


def test_cache_verbs(vw, photo_run):
    assert vw("cache", "ls")[1][-1].endswith("bytes")
    assert vw("cache", "trim", "1KB")[0] == 0
    assert vw("cache", "trim", "lots")[0] == 2
    assert vw("cache", "clear")[0] == 0
    assert vw("cache", "ls")[1][-1].split(": ")[1].startswith("0 entries")


def test_a_demo_runs(vw, tmp_path, monkeypatch):
    pytest.importorskip("skimage", reason="the demo's photographs come with scikit-image")
    if "sift" not in vwkit.backends()["featurizer"]:
        pytest.skip("the demo needs the plugin vwkit-opencv")
    monkeypatch.setattr("vwkit.demo.PHOTOGRAPHS", ("chelsea.png", "coffee.png", "rocket.jpg"))
    text = vwkit.demo._spec_text().replace("k: 2000", "k: 100")
    monkeypatch.setattr("vwkit.demo._spec_text", lambda: text)
    status, out, _ = vw("demo", "--quiet")
    assert status == 0
    name, score = out[-2].split()
    assert name == "mAP"
    assert 0.5 < float(score) <= 1
    assert out[-1] == f"report: {tmp_path / 'runs/demo/report.html'}"


def test_a_full_disk_is_one_line_and_can_be_resumed(tmp_path):
    """The size of written files is limited, as on a full disk."""
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 40}, index={"use": "exact"})
    dump(tmp_path / "s.yaml", spec)
    environment = {**os.environ, "VWKIT_CACHE": str(tmp_path / "cache")}
    run = [sys.executable, "-m", "vwkit", "run", "s.yaml", "--quiet"]

    def limit():
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    cut = subprocess.run(run, preexec_fn=limit, check=False, **options)
    assert cut.returncode == 1
    # A checkpoint that could not be written for the same reason is no second line.
    (line,) = cut.stderr.splitlines()
    assert line.startswith("error: ")
    assert "File too large" in line
    assert "no checkpoint" not in line
    done = subprocess.run([*run, "--resume"], check=False, **options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("ends", "lines"),
    [
        (
            vwkit.RunError("x: cannot be written: No space"),
            ["error: x: cannot be written: No space"],
        ),
        (vwkit.RunError("x: gone"), ["warning: no checkpoint (No space)", "error: x: gone"]),
        (OSError(28, "No space"), ["error: No space"]),
        (MemoryError(), ["warning: no checkpoint (No space)", "error: out of memory"]),
        (None, ["warning: no checkpoint (No space)"]),
    ],
)
def test_a_checkpoint_that_failed_for_the_reason_of_the_end_is_no_line(
    monkeypatch, capsys, ends, lines
):
    from vwkit.cli import warned

    main = importlib.import_module("vwkit.cli.main")

    def work(*_, **__):
        warned.show(vwkit.CheckpointWarning("no checkpoint (No space)", "No space"))
        warned.show(UserWarning("other"))
        if ends is not None:
            raise ends

    monkeypatch.setattr(main.cli, "main", work)
    main._status([])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "warning: other"
    assert [line.partition(";")[0] for line in said[1:]] == lines


def test_a_checkpoint_that_failed_is_told_while_the_work_goes_on(monkeypatch, capsys):
    from vwkit.cli import warned

    monkeypatch.setattr(warned, "_PATIENCE", 0.0)
    warned.show(vwkit.CheckpointWarning("no checkpoint (No space)", "No space"))
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(30)
    assert capsys.readouterr().err == "warning: no checkpoint (No space)\n"
    warned.show_waiting()
    assert capsys.readouterr().err == ""


def test_what_can_be_known_before_the_work_is_known_before_it(vw, tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3})
    dump(tmp_path / "s.yaml", spec)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for output, said in [
        ([{"write": "words", "path": "mine"}], "did not write"),
        ([{"write": "vocabulary", "path": "mine"}], "did not write"),
        ([{"write": "words", "path": "file"}], "a file is in the way"),
        ([{"write": "labels", "path": "mine"}], "a folder is in the way"),
        ([{"write": "labels", "path": "file/l.npy"}], "is a file, not a folder"),
        ([{"write": "words", "path": "q"}, {"write": "words", "path": "q"}], "written there, too"),
        ([{"write": "words", "path": "q"}, {"write": "labels", "path": "q/l"}], "written there"),
    ]:
        dump(tmp_path / "s.yaml", {**spec, "output": output})
        for verb in (["check"], ["run", "--quiet"]):
            status, _, err = vw(*verb, "s.yaml")
            assert (status, len(err)) == (2, 1)
            assert said in err[0]
    assert not (tmp_path / "runs").exists()
    dump(tmp_path / "s.yaml", {**spec, "output": {"write": "words", "path": "fresh"}})
    status, _, err = vw("run", "s.yaml", "--out", "fresh")
    assert (status, len(err)) == (2, 1)
    for change, said in [
        ("clusterer.init=kmeans++", "did you mean k-means++?"),
        ("clusterer.train_rows=2", "there are 2"),
        ("vectors.path=mine", "is a folder"),
        ("vectors.path=file", "not a known kind"),
    ]:
        status, _, err = vw("check", "s.yaml", "--set", change)
        assert (status, len(err)) == (2, 1), err
        assert said in err[0]
    assert vw("demo", "--out", "file")[0] == 2
    assert not (tmp_path / "file-photos").exists()


def test_a_run_in_the_making_says_so(tmp_path):
    from vwkit.lock import locked
    from vwkit.run_folder import INNER

    (tmp_path / "r" / INNER).mkdir(parents=True)
    with (
        locked(tmp_path / "r" / INNER / "lock", tmp_path / "r"),
        pytest.raises(vwkit.RunError, match=f"being made by process {os.getpid()}"),
    ):
        vwkit.Run.open(tmp_path / "r")
    with pytest.raises(vwkit.RunError, match="--resume"):
        vwkit.Run.open(tmp_path / "r")


def test_a_bad_row_is_told_with_its_file(vw, tmp_path):
    rows = blobs(dtype=np.float32)
    rows[7, 2] = np.nan
    vwkit.write(tmp_path / "x.npy", rows)
    dump(tmp_path / "s.yaml", vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3}))
    assert f"{tmp_path / 'x.npy'}: row 7, column 2" in vw("run", "s.yaml", "--quiet")[2][0]
