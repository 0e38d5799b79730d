"""Descriptor files at URLs: the same rows as from a file on disk, read in parts, and no more of them."""

import gzip
import json
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vwkit
from tests import remote_files
from tests.range_server import RangeServer
from tests.remote_files import NAMES, ROWS, content_of, rows_of
from vwkit.errors import DataError, FormatError, UnsupportedError, VwkitError
from vwkit.formats import MissingFileError, open_vectors, remote
from vwkit.formats.ahead import growing_spans, in_order, near_ranges
from vwkit.formats.remote import (
    MissingLibraryError,
    RemotePlace,
    open_url,
)
from vwkit.formats.urls import local_of_url, name_of_url, secret_in, shown_url

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install '.[remote]'")

memory, server = remote_files.memory, remote_files.server

SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["memory", "http"])
def put(request):
    """Put content somewhere and return its URL, for each kind of store."""
    if request.param == "memory":
        return request.getfixturevalue("memory")
    running = request.getfixturevalue("server")

    def put(name, content):
        running.files[name] = content
        return running.url(name)

    return put


class TestSameRows:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_way_of_reading(self, name, put, tmp_path):
        expected = rows_of(name)
        url = put(name, content_of(name, folder=tmp_path))
        file = open_vectors(url)
        assert (file.dim, file.dtype) == (expected.shape[1], expected.dtype)
        assert repr(file).startswith(f"<{file.format} file '{url}'")
        for step in (1, 333, ROWS, 10 * ROWS):
            if step == 1:
                chunks = list(file.first(50).chunks(1)) if file.rows else []
                np.testing.assert_array_equal(
                    np.concatenate(chunks or [expected[:50]]), expected[:50]
                )
                continue
            chunks = list(file.chunks(step))
            assert {len(chunk) for chunk in chunks[:-1]} <= {step}
            assert all(chunk.flags.c_contiguous and chunk.flags.writeable for chunk in chunks)
            np.testing.assert_array_equal(np.concatenate(chunks), expected)
        rows = [0, 0, 7, 8, 900, 1500, ROWS - 1]
        np.testing.assert_array_equal(file.take(rows), expected[rows])
        assert file.take([]).shape == (0, file.dim)
        with pytest.raises(DataError, match="row 2000 was asked for"):
            file.take([5, ROWS])
        if not name.endswith(".gz"):
            np.testing.assert_array_equal(file.read(17, 911), expected[17:911])
            assert file.read(5, 5).shape == (0, file.dim)
            with pytest.raises(DataError, match="were asked for"):
                file.read(0, ROWS + 1)

    @SETTINGS
    @given(data=st.data())
    def test_any_rows_and_chunks(self, data, memory, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "_BLOCK", data.draw(st.sampled_from([1, 100, 4096])))
        monkeypatch.setattr(remote, "_FIRST_BLOCK", data.draw(st.sampled_from([1, 64])))
        monkeypatch.setattr(remote, "_TAKE_BLOCK", data.draw(st.sampled_from([1, 60, 4096])))
        monkeypatch.setattr(remote, "_GAP", data.draw(st.sampled_from([0, 50, 100_000])))
        name = data.draw(st.sampled_from(["a.bvecs", "a.npy", "b.bvecs.gz"]))
        expected = rows_of(name, 40)
        file = open_vectors(memory(name, content_of(name, 40, folder=tmp_path)))
        rows = sorted(data.draw(st.lists(st.integers(0, 39), max_size=30)))
        np.testing.assert_array_equal(file.take(rows), expected[rows])
        step = data.draw(st.integers(1, 70))
        chunks = list(file.chunks(step))
        assert [len(chunk) for chunk in chunks[:-1]] == [step] * (len(chunks) - 1)
        np.testing.assert_array_equal(np.concatenate(chunks), expected)

    def test_a_stream(self, put, tmp_path):
        stream = vwkit.read(put("a.fvecs", content_of("a.fvecs", folder=tmp_path)))
        expected = rows_of("a.fvecs")
        np.testing.assert_array_equal(stream.toarray(), expected)
        np.testing.assert_array_equal(stream.take([3, 5]), expected[[3, 5]])
        np.testing.assert_array_equal(stream.from_row(700).toarray(), expected[700:])
        assert stream.array is None
        again = pickle.loads(pickle.dumps(stream.reader))
        np.testing.assert_array_equal(again.read(40, 90), expected[40:90])

    def test_the_oxford_descriptors_say_their_kind(self, put, tmp_path):
        assert vwkit.read(put("c_sift.bin", content_of("c_sift.bin"))).kind == "sift"

    def test_a_named_format(self, put, tmp_path):
        url = put("no_ending", content_of("a.bvecs", folder=tmp_path))
        with pytest.raises(FormatError, match="not a known kind of descriptor file"):
            vwkit.read(url)
        reader = vwkit.create("featurizer", "bvecs")
        for stream in (vwkit.read(url, "bvecs"), reader.read(url)):
            np.testing.assert_array_equal(stream.toarray(), rows_of("a.bvecs"))

    def test_npy_by_its_content(self, put, tmp_path):
        url = put("data", content_of("a.npy", folder=tmp_path))
        np.testing.assert_array_equal(vwkit.read(url).toarray(), rows_of("a.npy"))

    def test_a_file_url_is_a_path(self, tmp_path):
        content_of("a.npy", folder=tmp_path)
        stream = vwkit.read(f"file://{tmp_path}/a.npy")
        assert isinstance(stream.array, np.memmap)
        np.testing.assert_array_equal(stream.toarray(), rows_of("a.npy"))

    def test_a_chain(self, memory, tmp_path):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        stream = vwkit.read(f"simplecache::{url}")
        np.testing.assert_array_equal(stream.toarray(), rows_of("a.bvecs"))

    def test_a_partial_file(self, put, tmp_path):
        whole = content_of("a.bvecs", folder=tmp_path)
        url = put("a.bvecs", whole[:1000])
        with pytest.raises(
            FormatError, match=r"a\.bvecs: the file is truncated: row 75 is its last"
        ):
            open_vectors(url)
        file = open_vectors(url, partial=True)
        assert (file.rows, file.cut, file.partial_bytes) == (76, True, 12)
        np.testing.assert_array_equal(file.read(0, 76), rows_of("a.bvecs")[:76])

    def test_another_process_reads_its_rows(self, server, tmp_path):
        server.files["a.bvecs"] = content_of("a.bvecs", folder=tmp_path)
        reader = vwkit.read(server.url("a.bvecs")).reader
        (tmp_path / "reader").write_bytes(pickle.dumps(reader))
        code = (
            "import pickle, sys, pathlib\n"
            "reader = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
            "print(int(reader.read(100, 200).sum()))"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(tmp_path / "reader")],
            capture_output=True, text=True, check=True, cwd="/",
        )  # fmt: skip
        assert int(done.stdout) == rows_of("a.bvecs")[100:200].sum()
        assert done.stderr == ""

    def test_nothing_but_the_place_travels(self, memory, tmp_path):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        assert len(pickle.dumps(vwkit.read(url).reader)) < 1000


class TestOnlyWhatIsNeeded:
    def test_opening(self, server, tmp_path):
        server.files["a.bvecs"] = content_of("a.bvecs", 20_000, folder=tmp_path)
        assert vwkit.read(server.url("a.bvecs")).rows == 20_000
        assert server.served <= 1 + (1 << 16)

    def test_a_few_rows(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "_GAP", 1000)
        server.files["a.bvecs"] = content_of("a.bvecs", 20_000, folder=tmp_path)
        file = open_vectors(server.url("a.bvecs"))
        server.asked.clear()
        file.take([10, 12, 80, 9000, 19_999, 19_999])
        width = 13
        spans = sorted((first, last) for _, first, last in server.asked)
        assert spans == [
            (10 * width, 81 * width - 1),
            (9000 * width, 9001 * width - 1),
            (19_999 * width, 20_000 * width - 1),
        ]

    def test_a_range(self, server, tmp_path):
        server.files["a.npy"] = content_of("a.npy", folder=tmp_path)
        file = open_vectors(server.url("a.npy"))
        server.asked.clear()
        file.read(100, 120)
        assert server.asked == [("a.npy", 128 + 100 * 72, 128 + 120 * 72 - 1)]

    def test_the_first_rows(self, server, tmp_path):
        server.files["a.bvecs"] = content_of("a.bvecs", 20_000, folder=tmp_path)
        file = open_vectors(server.url("a.bvecs")).first(300)
        server.asked.clear()
        assert sum(len(chunk) for chunk in file.chunks(77)) == 300
        assert max(last for _, _, last in server.asked) == 300 * 13 - 1

    def test_the_beginning_of_a_compressed_file(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "_BLOCK", 1 << 17)
        server.files["b.bvecs.gz"] = content_of("b.bvecs.gz", 400_000, folder=tmp_path)
        whole = len(server.files["b.bvecs.gz"])
        assert whole > 1_000_000
        file = open_vectors(server.url("b.bvecs.gz"))
        np.testing.assert_array_equal(file.take([5]), rows_of("b.bvecs.gz", 400_000)[[5]])
        assert server.served < whole / 2

    def test_it_asks_for_no_compression(self, server, tmp_path):
        server.files["a.npy"] = content_of("a.npy", folder=tmp_path)
        vwkit.read(server.url("a.npy")).toarray()
        assert {one["Accept-Encoding"] for one in server.headers} == {"identity"}


class TestDamage:
    def test_a_row_of_another_dimension(self, put, tmp_path):
        content = bytearray(content_of("a.bvecs", folder=tmp_path))
        content[13 * 1234] = 7
        url = put("a.bvecs", bytes(content))
        stream = vwkit.read(url)
        message = rf"{url}: row 1234 \(the first is 0\) has dimension 7, expected 9"
        with pytest.raises(FormatError, match=message):
            stream.toarray()
        with pytest.raises(FormatError, match=message):
            stream.take([1, 1234])
        with pytest.raises(FormatError, match=message):
            stream.reader.read(1200, 1300)
        stream.take([1, 1233, 1235])

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.bvecs", b"", "0 rows: the file is empty"),
            ("a.npy", b"", "0 rows: the file is empty"),
            ("a.bvecs", b"\x09\0", "ends after 2 bytes"),
            ("a.bvecs", b"hello, I am not one", "claims dimension"),
            ("a.npy", b"hello, I am not one", "is not an npy file"),
            ("a.fbin", b"\x01\0\0\0\x02\0\0\0\0", "its header claims 1 rows of dimension 2"),
            ("b.bvecs.gz", b"hello, I am not one", "does not begin like a gzip file"),
            ("b.bvecs.gz", gzip.compress(bytes(40), mtime=0)[:-9], "row 0 claims dimension 0"),
        ],
    )
    def test_files_that_are_none(self, name, content, message, put):
        url = put(name, content)
        with pytest.raises(FormatError, match=message) as caught:
            vwkit.read(url)
        assert str(caught.value).startswith(url)

    def test_a_damaged_compressed_file(self, put, tmp_path):
        content = bytearray(content_of("b.bvecs.gz", folder=tmp_path))
        content[-6] ^= 1
        with pytest.raises(FormatError, match="the compressed data are damaged"):
            vwkit.read(put("b.bvecs.gz", bytes(content))).toarray()
        with pytest.raises(FormatError, match="the file is cut"):
            vwkit.read(put("b.bvecs.gz", bytes(content[:5000]))).toarray()

    def test_columns_first(self, put, tmp_path):
        np.save(tmp_path / "f.npy", np.asfortranarray(np.ones((5, 3))))
        with pytest.raises(UnsupportedError, match="stored column by column"):
            vwkit.read(put("f.npy", (tmp_path / "f.npy").read_bytes()))

    def test_no_such_file(self, put, tmp_path):
        url = put("a.bvecs", b"").replace("a.bvecs", "none.bvecs")
        with pytest.raises(MissingFileError, match=f"no such file: {url}"):
            vwkit.read(url)

    def test_a_folder(self, memory):
        memory("in/a.bvecs", b"1")
        with pytest.raises(FormatError, match="memory://bucket/in: is a folder"):
            vwkit.read("memory://bucket/in")


class TestChanges:
    """A file that changes while it is read is never half one and half the other."""

    @pytest.fixture
    def changing(self, put, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "_LOOK", 0.0)
        monkeypatch.setattr(remote, "_BLOCK", 1300)
        url = put("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        return vwkit.read(url), lambda content: put("a.bvecs", content)

    @pytest.mark.parametrize("rows", [ROWS, ROWS - 1])
    def test_in_the_middle_of_a_pass(self, changing, rows, tmp_path):
        stream, change = changing
        other = content_of("a.bvecs", rows, seed=1, folder=tmp_path)
        seen = 0
        with pytest.raises(FormatError, match="a.bvecs: changed while in use: it"):
            for chunk in stream.reader.chunks(100):
                seen += len(chunk)
                change(other)
        assert seen < ROWS

    def test_before_a_range_and_before_rows(self, changing, tmp_path):
        stream, change = changing
        change(content_of("a.bvecs", seed=1, folder=tmp_path))
        with pytest.raises(FormatError, match="changed while in use"):
            stream.reader.read(3, 9)
        with pytest.raises(FormatError, match="changed while in use"):
            stream.take([3, 9])
        with pytest.raises(FormatError, match="changed while in use"):
            pickle.loads(pickle.dumps(stream.reader)).read(0, 3)

    def test_it_is_gone(self, put, tmp_path, request):
        url = put("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        stream = vwkit.read(url)
        if url.startswith("memory"):
            fsspec.filesystem("memory").rm("/bucket/a.bvecs")
        else:
            del request.getfixturevalue("server").files["a.bvecs"]
        with pytest.raises(MissingFileError, match="no such file"):
            stream.toarray()


class TestServers:
    @pytest.fixture
    def stream(self, server, tmp_path):
        server.files["a.bvecs"] = content_of("a.bvecs", folder=tmp_path)
        return vwkit.read(server.url("a.bvecs"))

    def test_one_that_fails_for_the_moment(self, server, stream):
        failed = set()

        def fault(handler, name, span):
            if span not in failed:
                failed.add(span)
                server.send(handler, 503, b"later")
                return True
            return False

        server.fault = fault
        np.testing.assert_array_equal(stream.toarray(), rows_of("a.bvecs"))
        assert failed

    def test_one_that_fails(self, server, stream):
        server.fault = lambda handler, name, span: server.send(handler, 503, b"") or True
        with pytest.raises(DataError, match=r"a\.bvecs: the server answered 503"):
            stream.toarray()

    def test_one_that_refuses(self, server, stream):
        server.fault = lambda handler, name, span: server.send(handler, 403, b"") or True
        with pytest.raises(DataError, match=r"a\.bvecs: the server answered 403 Forbidden"):
            stream.toarray()

    def test_one_that_hangs_up(self, server, stream):
        def fault(handler, name, span):
            handler.close_connection = True
            return True

        server.fault = fault
        with pytest.raises(DataError, match=r"a\.bvecs: cannot be read"):
            stream.toarray()

    def test_nobody_there(self, server):
        gone = RangeServer()
        gone.close()
        with pytest.raises(DataError, match=r"a\.bvecs: cannot be read"):
            vwkit.read(gone.url("a.bvecs"))

    def test_one_that_knows_no_parts(self, server, stream):
        def whole(handler, name, span):
            server.good(handler, name, None)
            return True

        server.fault = whole
        with pytest.raises(
            DataError, match="sends no parts of it, and it can only be fetched whole"
        ):
            vwkit.read(server.url("a.bvecs"))
        with pytest.raises(DataError, match="sends no parts"):
            stream.toarray()

    def test_one_that_compresses(self, server, stream):
        def fault(handler, name, span):
            server.good(handler, name, span, {"Content-Encoding": "gzip"})
            return True

        server.fault = fault
        with pytest.raises(DataError, match="compresses what it sends"):
            vwkit.read(server.url("a.bvecs"))

    @pytest.mark.parametrize(
        "place", ["", "bytes 0-1/x", "bytes 5-17/26000", "bytes 0-3/26000", "lines 1-2/3"]
    )
    def test_one_that_sends_another_part(self, server, stream, place):
        def fault(handler, name, span):
            server.good(handler, name, span, {"Content-Range": place})
            return True

        server.fault = fault
        with pytest.raises(DataError, match="which part it sends|the server sends bytes"):
            stream.reader.read(0, 1)

    def test_a_short_answer(self, server, stream):
        def fault(handler, name, span):
            content = server.files[name]
            place = {"Content-Range": f"bytes {span[0]}-{span[1]}/{len(content)}"}
            part = content[span[0] : span[1]]
            server.send(handler, 206, part, place, length=len(part) + 1)
            return True

        server.fault = fault
        with pytest.raises(DataError, match=r"a\.bvecs: .*(cannot be read|and then no more)"):
            stream.toarray()

    def test_an_endless_answer(self, server, stream):
        """Neither what is claimed nor what is sent fills the memory."""

        def fault(handler, name, span):
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {span[0]}-{span[1]}/26000")
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(2000):
                handler.wfile.write(bytes(1 << 20))
            return True

        server.fault = fault
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match="row 0 .* has dimension 0"):
                stream.reader.read(0, 10)
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()

    def test_an_incredible_size(self, server):
        def fault(handler, name, span):
            place = {"Content-Range": f"bytes {span[0]}-{span[1]}/{10**17}"}
            body = (b"\x09\0\0\0" + bytes(9)) * ((span[1] - span[0]) // 13 + 1)
            server.send(handler, 206, body[: span[1] + 1 - span[0]], place)
            return True

        server.fault = fault
        tracemalloc.start()
        try:
            file = open_vectors(server.url("a.bvecs"), partial=True)
            assert len(next(iter(file.chunks(1000)))) == 1000
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()

    def test_without_etags_the_time_counts(self, server, tmp_path):
        server.etags = False
        time = "Mon, 01 Jan 2024 00:00:00 GMT"

        def fault(handler, name, span):
            server.good(handler, name, span, {"Last-Modified": time})
            return True

        server.fault = fault
        server.files["a.npy"] = content_of("a.npy", folder=tmp_path)
        assert open_url(server.url("a.npy")).mark == ("Last-Modified", time)


class TestLibraries:
    def test_without_fsspec(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(MissingLibraryError, match=r"pip install 'vwkit\[remote\]'"):
            vwkit.read("s3://bucket/a.bvecs")

    def test_without_the_package_of_a_store(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gcsfs", None)
        with pytest.raises(MissingLibraryError, match="gs:// is read by gcsfs: pip install gcsfs"):
            vwkit.read("gs://bucket/a.bvecs")

    def test_an_unknown_store(self):
        with pytest.raises(MissingLibraryError, match="no installed package reads such a URL"):
            vwkit.read("nowhere://bucket/a.bvecs")

    def test_a_library_that_fails_is_one_error(self, memory, tmp_path, monkeypatch):
        url = memory("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        stream = vwkit.read(url)

        def cat_file(self, path, start=None, end=None):
            raise RuntimeError(f"{url}: the\nlibrary's own trouble")

        monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", cat_file)
        with pytest.raises(DataError, match="a.bvecs: cannot be read: .*the library's own trouble"):
            stream.toarray()

    def test_a_library_that_sends_less(self, memory, tmp_path, monkeypatch):
        stream = vwkit.read(memory("a.bvecs", content_of("a.bvecs", folder=tmp_path)))
        monkeypatch.setattr(
            type(fsspec.filesystem("memory")), "cat_file", lambda self, path, start, end: b"123"
        )
        with pytest.raises(DataError, match="bytes from 0 on were asked for, 3 came"):
            stream.reader.read(0, 5)

    def test_no_secret_is_told(self, server):
        url = server.url("none.bvecs").replace("://", "://me:hidden@") + "?sig=hidden"
        with pytest.raises(VwkitError) as caught:
            vwkit.read(url)
        assert "hidden" not in str(caught.value)
        assert "none.bvecs" in str(caught.value)


class TestNames:
    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("s3://bucket/some/a.bvecs", "a.bvecs"),
            ("s3://bucket/a.bvecs?versionId=3", "a.bvecs"),
            ("https://host/a%20b.fvecs?x=/y.npy#z", "a b.fvecs"),
            ("simplecache::s3://bucket/a.bvecs.gz", "a.bvecs.gz"),
            ("zip://in/a.fvecs::s3://bucket/all.zip", "a.fvecs"),
        ],
    )
    def test_the_name_in_a_url(self, url, name):
        assert name_of_url(url) == name

    @pytest.mark.parametrize(
        ("url", "secret"),
        [
            ("s3://bucket/a.bvecs", None),
            ("abfs://container@account.dfs.core.windows.net/a.bvecs", None),
            ("s3://bucket/a.bvecs?versionId=3", None),
            ("ftp://me:word@host/a.bvecs", "a password"),
            ("https://host/a.bvecs?X-Amz-Date=1&X-Amz-Signature=2", "X-Amz-Signature"),
            ("https://host/a.bvecs?sv=1&sig=abc", "sig"),
            ("simplecache::https://host/a.bvecs?access_token=abc", "access_token"),
            ("https://host/a.bvecs?at=12:30&sig=abc", "sig"),
            ("https://me:word@host/a@b:c.bvecs", "a password"),
        ],
    )
    def test_secrets(self, url, secret):
        assert secret_in(url) == secret
        if secret:
            assert "word@" not in shown_url(url)
            assert "abc" not in shown_url(url)
            assert "Signature" not in shown_url(url)
        else:
            assert shown_url(url).partition("?")[0] == url.partition("?")[0]

    def test_local_urls(self):
        assert local_of_url("file:///data/a.bvecs") == Path("/data/a.bvecs")
        assert local_of_url("s3://data/a.bvecs") is None
        assert local_of_url("simplecache::file:///a") is None


class TestAhead:
    def test_in_order_and_no_further_than_needed(self):
        begun = []

        def work(task):
            begun.append(task)
            return task * task

        results = in_order(work, range(100), 4)
        assert [next(results) for _ in range(3)] == [0, 1, 4]
        results.close()
        assert len(begun) <= 3 + 4
        assert list(in_order(work, range(50), 4)) == [n * n for n in range(50)]
        assert list(in_order(work, [], 4)) == []

    def test_the_first_result_costs_one_task(self):
        begun = []
        results = in_order(begun.append, range(100), 4)
        next(results)
        results.close()
        assert begun == [0]

    def test_an_error_comes_where_its_result_would(self):
        def work(task):
            if task == 3:
                raise ValueError("three")
            return task

        results = in_order(work, range(9), 4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(results)

    @given(stop=st.integers(0, 5000), first=st.integers(1, 9), most=st.integers(9, 100))
    def test_growing_spans(self, stop, first, most):
        spans = list(growing_spans(stop, first, most))
        assert [start for start, _ in spans] == [0, *(end for _, end in spans)][: len(spans)]
        assert (spans[-1][1] if spans else 0) == stop
        assert all(end - start <= most for start, end in spans)

    @given(
        rows=st.lists(st.integers(0, 500), min_size=1, max_size=50).map(sorted),
        gap=st.integers(1, 60),
        longest=st.integers(1, 60),
    )
    def test_near_ranges(self, rows, gap, longest):
        found = list(near_ranges(np.array(rows), gap, longest))
        assert np.concatenate([some for some, _, _ in found]).tolist() == rows
        for some, start, stop in found:
            assert start == some[0]
            assert stop == some[-1] + 1
            assert stop - start <= longest
            assert (np.diff(some) <= gap).all()


class TestCommands:
    def run(self, *words):
        from click.testing import CliRunner

        from vwkit.cli.files import convert_command, inspect_command

        command = {"inspect": inspect_command, "convert": convert_command}[words[0]]
        done = CliRunner().invoke(command, list(words[1:]))
        if done.exception is not None:
            raise done.exception
        return done.output

    def test_inspect(self, put, tmp_path):
        url = put("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        found = json.loads(self.run("inspect", url, "--json"))
        assert found["file"] == url
        assert (found["rows"], found["bytes"]) == (ROWS, ROWS * 13)

    def test_convert(self, put, tmp_path):
        url = put("a.bvecs", content_of("a.bvecs", folder=tmp_path))
        assert self.run("convert", url, str(tmp_path / "b.fvecs")).endswith("2,000 rows\n")
        np.testing.assert_array_equal(
            vwkit.read(tmp_path / "b.fvecs").toarray(), rows_of("a.bvecs").astype(np.float32)
        )


def test_a_place_stands_for_a_path(memory, tmp_path):
    place = open_url(memory("a.bvecs", content_of("a.bvecs", folder=tmp_path)))
    assert isinstance(place, RemotePlace)
    assert (place.name, place.stem, place.size) == ("a.bvecs", "a", ROWS * 13)
    assert place.absolute() == place == pickle.loads(pickle.dumps(place))
    with place.open() as file:
        assert file.read(4) == b"\x09\0\0\0"
        assert len(file.read()) == ROWS * 13 - 4
