"""The job from end to end on the command line: fetch, search, filter, look, add, remove."""

import contextlib
import io
import json
import re
import warnings
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from tests.helpers import dump
from tests.picture_server import PictureServer, jpeg
from vwkit.cli.main import main
from vwkit.run import Run


def vwkit_command(folder, *arguments, status=0):
    """Call the command line in this process; give what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        pytest.raises(SystemExit) as ended,
    ):
        warnings.simplefilter("always")
        main([str(one) for one in arguments])
    assert ended.value.code == status, (out.getvalue(), err.getvalue())
    assert "Traceback" not in err.getvalue()
    return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


NASTY = "<script>alert(1)</script> \x1b[31m"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    with PictureServer() as server:
        records = [
            {
                "asin": f"B{i:03d}",
                "imUrl": server.url(f"/picture/{i}.jpg"),
                "title": NASTY if i == 2 else f"Dress number {i}",
                "price": 5.0 * i,
                "categories": [["Clothing", "Women" if i % 2 else "Men"]],
                "related": {"also_bought": ["x"] * 100},
            }
            for i in range(8)
        ]
        records.append({"asin": "GONE", "imUrl": server.url("/missing"), "title": "gone"})
        records.append({"asin": "NONE", "title": "no picture"})
        # As in the first edition of the Amazon data: Python, not JSON.
        (folder / "metadata.json").write_text("".join(f"{record!r}\n" for record in records))
        dump(
            folder / "shop.yaml",
            {
                "vwkit": 1,
                "images": {
                    "urls": "metadata.json",
                    "url_field": "imUrl",
                    "id_field": "asin",
                    "fields": ["title", "price", "categories"],
                    "cache": "amazon",
                    "allow_private": True,
                },
                "featurizer": {"use": "colour-histogram"},
                "index": {"use": "exact"},
            },
        )
        yield folder, server


@pytest.fixture(scope="module")
def made(shop):
    folder, _ = shop
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWKIT_CACHE", str(folder / "vwkit-cache"))
        done = vwkit_command(folder, "run", "shop.yaml", "--out", "run")
    assert "images" in done.stderr
    assert "2 of 10 items were skipped" in done.stderr
    assert "10 items, 8 ok, 2 skipped, 8 fetched" in done.stdout
    (folder / "query.jpg").write_bytes(jpeg(3))
    return folder


def test_a_plain_search_shows_fields(made):
    done = vwkit_command(made, "search", "run", "query.jpg", "-k", 2, "--fields", "title,price")
    lines = done.stdout.splitlines()
    assert lines[0] == "query.jpg"
    assert re.fullmatch(r" +1  0\.0000 +B003  title: Dress number 3  price: 15\.0", lines[1])
    assert len(lines) == 3
    done = vwkit_command(made, "search", "run", "B002", "-k", 1, "--fields", "title")
    assert "\x1b" not in done.stdout
    assert "<script>alert(1)</script>" in done.stdout


def test_a_field_that_nobody_has_is_a_mistake(made):
    done = vwkit_command(made, "search", "run", "B002", "--fields", "tittle", status=2)
    assert "no item has a field 'tittle'; did you mean title?" in done.stderr


def test_filters_on_the_command_line(made):
    done = vwkit_command(
        made, "search", "run", "B003", "--json",
        "--where", "price < 25 and price > 0", "--where", "categories contains 'women'",
    )  # fmt: skip
    (found,) = json.loads(done.stdout)
    assert found["matches"][0]["id"] == "B003"
    assert {one["id"] for one in found["matches"]} == {"B001", "B003"}
    assert found["matches"][0]["metadata"]["categories"] == [["Clothing", "Women"]]
    done = vwkit_command(made, "search", "run", "B003", "--where", "prize < 5", status=2)
    assert "where, column 1: no item has a field 'prize'; did you mean price?" in done.stderr
    done = vwkit_command(made, "search", "run", "GONE", status=2)
    assert "was skipped" in done.stderr


def test_pictures_of_a_search(made):
    vwkit_command(
        made, "search", "run", "query.jpg", "B002", "-k", 3, "--fields", "title,price",
        "--where", "price >= 0", "--html", "page.html", "--png", "grid.png",
    )  # fmt: skip
    page = (made / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Only items where <code>price &gt;= 0</code>" in page
    assert "Dress number 3" in page
    assert page.count("data:image/jpeg") == 8
    with PIL.Image.open(made / "grid.png") as grid:
        assert grid.size[0] == 4 * 180 + 12
        red = (np.asarray(grid.convert("RGB")) == (204, 51, 17)).all(axis=2).sum()
        assert red > 2 * 4 * 2 * (64 + 48)  # two frames around pictures of that size
    done = vwkit_command(made, "search", "run", "B002", "--png", "grid.jpg", status=2)
    assert "a picture grid is a PNG" in done.stderr


def test_adding_and_removing(made, shop):
    _, server = shop
    more = [{"asin": f"B{i:03d}", "imUrl": server.url(f"/picture/{i}.jpg")} for i in (7, 20, 21)]
    (made / "more.jsonl").write_text("".join(json.dumps(one) + "\n" for one in more))
    done = vwkit_command(made, "add", "run", "more.jsonl", status=1)
    assert "'B007' is an item of this run already, so nothing was added" in done.stderr
    done = vwkit_command(made, "add", "run", "more.jsonl", "--skip-existing", "--quiet")
    assert done.stdout == "2 added; 10 items can be found\n"
    (made / "other.jpg").write_bytes(jpeg(30))
    done = vwkit_command(made, "add", "run", "other.jpg", "--id", "OWN", "--json")
    assert json.loads(done.stdout)["items"] == [{"id": "OWN", "row": 12, "status": "ok"}]
    done = vwkit_command(made, "remove", "run", "B003", "OWN")
    assert done.stdout == "2 removed; 9 items can be found\n"
    done = vwkit_command(made, "search", "run", "query.jpg", "-k", 9)
    assert "B003" not in done.stdout
    assert "B021" in done.stdout
    done = vwkit_command(made, "remove", "run", "B003", status=1)
    assert "was removed before" in done.stderr
    report = (made / "run/report.html").read_text()
    assert "3 items were added and 2 items were removed" in report
    assert [item.status for item in Run.open(made / "run").items].count("removed") == 2
    done = vwkit_command(made, "inspect", "run")
    assert "Traceback" not in done.stderr
    done = vwkit_command(made, "add", "run", "nothing.jpg", status=2)
    assert "nothing.jpg: no such file or folder" in done.stderr
