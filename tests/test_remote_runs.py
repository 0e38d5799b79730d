"""Specs that name their descriptor files by URL: the same results as from a path, and the same cache."""

import hashlib
import os
import sys
import time

import numpy as np
import pytest

import vwkit
from tests import remote_files
from tests.remote_files import content_of, rows_of
from vwkit.cache import Cache
from vwkit.errors import DataError, ParameterError, SpecError
from vwkit.jobs import Job
from vwkit.planning.hits import Hits
from vwkit.planning.walk import Walk
from vwkit.remote import UrlFile, fetched_to, file_of, place_key

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install '.[remote]'")

memory, server = remote_files.memory, remote_files.server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def ran(tmp_path):
    """Run a spec of these vectors and return its run."""

    def ran(vectors, **more):
        where = tmp_path / f"run{len(os.listdir(tmp_path))}"
        spec = {
            "vwkit": 1,
            "vectors": vectors,
            "clusterer": {"use": "lloyd", "k": 6, "iterations": 3, **more},
            "output": {"write": "vocabulary", "path": str(where / "out")},
        }
        return vwkit.Pipeline.from_dict(spec).run(where / "run")

    return ran


def centers(run):
    return vwkit.load(run.path("clusterer")).centers


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class TestInPlace:
    @pytest.mark.parametrize(
        ("name", "fewer"),
        [
            ("a.bvecs", {"limit": 700}),
            ("a.bvecs", {"sample": 300}),
            ("a.npy", {}),
            ("b.bvecs.gz", {}),
            ("b.bvecs.gz", {"limit": 700, "sample": 900}),
        ],
    )
    def test_the_same_as_a_path(self, name, fewer, memory, tmp_path, ran):
        url = memory(name, content_of(name, folder=tmp_path))
        there = ran({"url": url, **fewer})
        here = ran({"path": str(tmp_path / name), **fewer})
        assert centers(there).tobytes() == centers(here).tobytes()
        assert there.manifest["counts"] == here.manifest["counts"]
        assert there.items[0].id == here.items[0].id == name
        assert there.items[0].path == url

    def test_over_http_and_a_named_format(self, server, tmp_path, ran):
        server.files["data"] = content_of("a.bvecs", folder=tmp_path)
        there = ran({"url": server.url("data"), "use": "bvecs"})
        here = ran({"path": str(tmp_path / "a.bvecs")})
        assert centers(there).tobytes() == centers(here).tobytes()

    def test_train(self, memory, tmp_path, ran):
        url = memory("a.bvecs", content_of("a.bvecs", seed=3, folder=tmp_path))
        (tmp_path / "a.bvecs").rename(tmp_path / "t.bvecs")
        base = memory("b.bvecs", content_of("a.bvecs", folder=tmp_path))
        there = ran({"url": base}, train={"url": url, "rows": 500})
        here = ran(
            {"path": str(tmp_path / "a.bvecs")},
            train={"path": str(tmp_path / "t.bvecs"), "rows": 500},
        )
        assert centers(there).tobytes() == centers(here).tobytes()

    def test_stages_come_from_the_cache_until_the_file_changes(self, server, tmp_path, ran):
        server.files["a.bvecs"] = content_of("a.bvecs", folder=tmp_path)
        url = server.url("a.bvecs")
        first = ran({"url": url})
        before = server.served
        second = ran({"url": url})
        assert server.served - before < before / 2
        stages = [run.manifest["stages"]["clusterer"] for run in (first, second)]
        assert [one["from"] for one in stages] == ["computed", "cache"]
        server.files["a.bvecs"] = content_of("a.bvecs", seed=5, folder=tmp_path)
        third = ran({"url": url})
        assert centers(third).tobytes() != centers(second).tobytes()
        again = ran({"path": str(tmp_path / "a.bvecs")})
        assert centers(third).tobytes() == centers(again).tobytes()

    def test_a_plan_knows_what_is_finished(self, memory, tmp_path):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        content = sha256((tmp_path / "a.bvecs").read_bytes())
        cache = Cache()
        for vectors in ({"url": url}, {"url": url, "sha256": content}):
            spec = {"vwkit": 1, "vectors": vectors, "clusterer": {"use": "lloyd", "k": 6}}
            pipeline = vwkit.Pipeline.from_dict(spec)
            for said in ("no", "yes"):
                # Nothing is measured.
                plan = Walk(pipeline.spec, Job(), None, Hits(cache, None)).run()
                (stage,) = plan.stages
                assert (stage.rows, stage.cached) == (2000, said)
                pipeline.run(tmp_path / "planned")
        cache.close()

    def test_a_limit_reads_no_further(self, server, tmp_path, ran):
        server.files["a.bvecs"] = content_of("a.bvecs", 30_000, folder=tmp_path)
        ran({"url": server.url("a.bvecs"), "limit": 100})
        assert max(last for _, _, last in server.asked) < 1 << 16

    def test_a_store_that_tells_no_mark(self, server, tmp_path, ran):
        server.etags = False
        server.files["a.bvecs"] = content_of("a.bvecs", folder=tmp_path)
        with pytest.raises(DataError, match="says neither an ETag nor a time .* give its sha256"):
            ran({"url": server.url("a.bvecs")})

    def test_the_run_says_where_from(self, memory, tmp_path, ran):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        content = sha256((tmp_path / "a.bvecs").read_bytes())
        run = ran({"url": url})
        assert run.manifest["spec"]["vectors"] == {"url": url}
        assert "<h1>a.bvecs</h1>" in (run.folder / "report.html").read_text()
        told = ran({"url": url, "sha256": content}).manifest["spec"]["vectors"]
        assert told == {"url": url, "sha256": content}

    def test_a_row_that_is_not_finite(self, memory, tmp_path, ran):
        vectors = np.ones((50, 4), np.float32)
        vectors[30, 2] = np.nan
        vwkit.write(tmp_path / "n.fvecs", vectors)
        url = memory("n.fvecs", (tmp_path / "n.fvecs").read_bytes())
        with pytest.raises(DataError, match=f"{url}: row 30"):
            ran({"url": url})


class TestFetched:
    @pytest.fixture
    def asked(self, server, tmp_path):
        content = content_of("a.bvecs", folder=tmp_path)
        server.files["a.bvecs"] = content
        return UrlFile(server.url("a.bvecs"), sha256(content).upper()), content

    def test_once(self, asked, server, ran):
        file, content = asked
        run = ran({"url": file.url, "sha256": file.sha256})
        assert fetched_to(file).read_bytes() == content
        # What a check looks at, and the whole.
        assert server.served < len(content) + (1 << 17)
        before = sum(server.counts.values())
        again = ran({"url": file.url, "sha256": file.sha256})
        assert sum(server.counts.values()) == before
        assert centers(again).tobytes() == centers(run).tobytes()

    def test_its_key_is_that_of_a_path(self, asked, tmp_path):
        file, content = asked
        assert place_key(Cache(), file_of(file)) == sha256(content)

    def test_another_file_is_not_kept(self, asked, server):
        file, _ = asked
        server.files["a.bvecs"] += b"."
        with pytest.raises(ParameterError, match=r"sha256: http.* is another file and is not used"):
            file_of(file)
        assert not fetched_to(file).parent.exists()

    def test_a_kept_file_that_was_damaged_is_fetched_again(self, asked):
        file, content = asked
        kept = file_of(file)
        kept.write_bytes(b"something else")
        assert file_of(file).read_bytes() == content

    def test_from_a_server_that_knows_no_parts(self, asked, server):
        file, content = asked

        def whole(handler, name, span):
            server.good(handler, name, None)
            return True

        server.fault = whole
        assert file_of(file).read_bytes() == content

    def test_without_fsspec(self, asked, monkeypatch):
        file, content = asked
        monkeypatch.setitem(sys.modules, "fsspec", None)
        assert file_of(file).read_bytes() == content

    def test_a_body_that_ends_early(self, asked, server, monkeypatch):
        file, content = asked
        monkeypatch.setitem(sys.modules, "fsspec", None)

        def short(handler, name, span):
            server.send(handler, 200, content[:100], length=len(content))
            return True

        server.fault = short
        with pytest.raises(DataError, match=r"a\.bvecs: (ended after 100 of 26,000|cannot be)"):
            file_of(file)
        assert not fetched_to(file).parent.exists()

    def test_no_room(self, asked, monkeypatch):
        import shutil
        from types import SimpleNamespace

        file, _ = asked
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(DataError, match="has 26,000 bytes, and .* has room for 1,000"):
            file_of(file)

    def test_a_folder_that_cannot_be_written(self, asked, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "files").write_bytes(b"")
        with pytest.raises(DataError, match="cannot be written"):
            file_of(asked[0])

    def test_a_local_file_is_only_checked(self, tmp_path, ran):
        content = content_of("a.bvecs", folder=tmp_path)
        url = f"file://{tmp_path}/a.bvecs"
        assert file_of(UrlFile(url, sha256(content))) == tmp_path / "a.bvecs"
        with pytest.raises(ParameterError, match="it is another file"):
            file_of(UrlFile(url, "0" * 64))
        assert ran({"url": url}).manifest["counts"]["descriptors"] == 2000

    def test_the_cache_shows_and_trims_it(self, asked):
        kept = file_of(asked[0])
        (entry,) = [one for one in Cache().entries() if one.kind == "files"]
        assert (entry.path, entry.size) == (kept.parent, 26_000)
        assert Cache().trim(0) >= 26_000
        assert not kept.exists()

    def test_use_keeps_it_recent(self, asked):
        kept = file_of(asked[0])
        os.utime(kept.parent, (0, 0))
        file_of(asked[0])
        (entry,) = [one for one in Cache().entries() if one.kind == "files"]
        assert time.time() - entry.used < 60


class TestChecks:
    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            ({}, "vectors: needs path or url"),
            ({"url": 3}, "vectors.url: must be a URL such as"),
            ({"url": "a.bvecs"}, "vectors.url: must be a URL such as"),
            ({"path": "s3://b/a.bvecs"}, "vectors.path: is a URL: write it as url"),
            ({"path": ".", "url": "s3://b/a.bvecs"}, "vectors.path: path or url, not both"),
            ({"path": ".", "sha256": "0" * 64}, "vectors.sha256: belongs to a url"),
            ({"url": "memory://b/a", "sha256": "12"}, "vectors.sha256: must be 64 hexadecimal"),
            ({"url": "s3://b/a?X-Amz-Signature=1"}, "vectors.url: holds a secret (X-Amz-Sig"),
            ({"url": "file://a.bvecs"}, "vectors.url: file://a.bvecs needs an absolute path"),
            ({"url": "file:///no/a.bvecs"}, "vectors.url: no such file or folder: /no/a.bvecs"),
            ({"url": "memory://none/a.bvecs"}, "vectors.url: no such file: memory://none/a.bvecs"),
            ({"url": "nowhere://a.bvecs"}, "vectors.url: nowhere://a.bvecs: no installed package"),
            ({"url": "memory://a", "shaa256": "1"}, "did you mean sha256?"),
        ],
    )
    def test_told_before_the_run(self, vectors, message):
        with pytest.raises(SpecError) as caught:
            vwkit.Pipeline.from_dict({"vwkit": 1, "vectors": vectors})
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ({"path": "s3://b/a.bvecs"}, "clusterer.train.path: is a URL"),
            ({"url": "x"}, "clusterer.train.url: must be a URL"),
            ({"url": "memory://b/a", "images": "."}, "clusterer.train: url or images, not both"),
        ],
    )
    def test_train(self, train, message, memory, tmp_path):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        clusterer = {"use": "lloyd", "k": 2, "train": train}
        with pytest.raises(SpecError) as caught:
            vwkit.Pipeline.from_dict({"vwkit": 1, "vectors": {"url": url}, "clusterer": clusterer})
        assert message in str(caught.value)

    def test_outputs_are_local(self, memory, tmp_path):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        output = {"write": "vectors", "path": "s3://bucket/out.npy"}
        with pytest.raises(SpecError, match="output.path: outputs are written to local paths only"):
            vwkit.Pipeline.from_dict({"vwkit": 1, "vectors": {"url": url}, "output": output})
        with pytest.raises(ParameterError, match="s3://bucket/out.npy: files are written to local"):
            vwkit.write("s3://bucket/out.npy", np.ones((2, 3)))

    def test_a_check_fetches_nothing(self, server, tmp_path):
        content = content_of("a.bvecs", 30_000, folder=tmp_path)
        server.files["a.bvecs"] = content
        file = UrlFile(server.url("a.bvecs"), sha256(content))
        vectors = {"url": file.url, "sha256": file.sha256}
        spec = {"vwkit": 1, "vectors": vectors, "quantizer": {"use": "pq", "m": 2}}
        with pytest.raises(SpecError, match="2 does not divide the 9 dimensions"):
            vwkit.Pipeline.from_dict(spec)
        assert server.served < len(content) / 2
        assert not fetched_to(file).exists()


class TestS3:
    """A store of the S3 kind, on loopback."""

    @pytest.fixture
    def bucket(self, monkeypatch):
        pytest.importorskip("s3fs", reason="s3fs is not installed")
        moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
        from fsspec.config import conf

        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(key, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        # As a user does it, in ~/.config/fsspec or by FSSPEC_S3_ENDPOINT_URL.
        monkeypatch.setitem(conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        yield files
        files.close_session(files.loop, files.s3)
        type(files).clear_instance_cache()
        running.stop()

    def test_rows_and_changes(self, bucket, tmp_path, ran):
        content = content_of("a.bvecs", folder=tmp_path)
        bucket.pipe_file("bucket/a.bvecs", content)
        stream = vwkit.read("s3://bucket/a.bvecs")
        np.testing.assert_array_equal(stream.toarray(), rows_of("a.bvecs"))
        np.testing.assert_array_equal(stream.take([3, 999]), rows_of("a.bvecs")[[3, 999]])
        there, here = ran({"url": "s3://bucket/a.bvecs"}), ran({"path": str(tmp_path / "a.bvecs")})
        assert centers(there).tobytes() == centers(here).tobytes()
        kept = file_of(UrlFile("s3://bucket/a.bvecs", sha256(content)))
        assert kept.read_bytes() == content
        bucket.pipe_file("bucket/a.bvecs", content_of("a.bvecs", seed=1, folder=tmp_path))
        with pytest.raises(DataError, match="s3://bucket/a.bvecs: changed while in use: its ETag"):
            stream.reader.read(0, 5)
        with pytest.raises(DataError, match="no such file: s3://bucket/b.bvecs"):
            vwkit.read("s3://bucket/b.bvecs")
