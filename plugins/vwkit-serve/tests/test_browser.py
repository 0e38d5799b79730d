"""The page in a real browser. Skipped where no Chromium is installed; none is downloaded."""

import shutil
import time
from pathlib import Path

import PIL.Image
import pytest

import vwkit

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (chromium, google-chrome)"
)
ODD = "<b>&\"'é.png"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed: pip install vwkit-serve[testing]",
    )
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"]
        flags += ["--disable-background-networking", "--disable-component-update"]
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        contexts = {}  # each takes a while to start

        def context(viewport, **options):
            key = str((viewport, options))
            if key not in contexts:
                contexts[key] = started.new_context(viewport=viewport, **options)
            return contexts[key]

        yield context
        started.close()


@pytest.fixture
def page(browser):
    """Return a function that opens a page; what the browser complains of fails the test."""
    pages, complaints = [], []

    def open_page(server, path="", viewport=DESKTOP, **options):
        opened = browser(viewport, **options).new_page()
        pages.append(opened)
        opened.set_default_timeout(15_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        opened.on("request", lambda asked: asked.url.startswith(("http", "ws"))
                  and not asked.url.startswith(server.url) and complaints.append(asked.url))  # fmt: skip
        opened.goto(server.url + path)
        return opened

    yield open_page
    for opened in pages:
        opened.close()
    # An answer of the server that is an error is told by the page; browsers note it, too.
    told = ("status of 4", "ERR_CONNECTION_REFUSED")
    assert [one for one in complaints if not any(part in one for part in told)] == []


def eventually(page, expression):
    """Wait until something holds; not by the page's own `eval`, which its policy forbids."""
    end = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


def results(page):
    page.wait_for_selector("text=Most alike")
    return page.locator("section:has(> h2:text('Most alike')) .pictures a")


def photo(folder, name="2-left.png"):
    return str(folder / "photos" / name)


class TestSearch:
    @pytest.mark.parametrize("kind", ["bag", "votes", "whole"])
    def test_a_picture_that_is_chosen(self, serve, page, folder, kind):
        opened = page(serve(kind))
        opened.set_input_files("#file", photo(folder))
        found = results(opened)
        assert found.first.locator(".id").inner_text() == "2-left.png"
        assert opened.locator("h1").inner_text() == "2-left.png"
        assert opened.url.endswith("#/upload")
        eventually(
            opened, "[...document.querySelectorAll('.pictures img')].every(i => i.naturalWidth > 0)"
        )
        assert opened.evaluate("document.querySelector('.asked img').naturalWidth") == 140

    @pytest.mark.parametrize("kind", ["bag", "votes", "whole"])
    def test_a_result_is_opened_and_closed_by_escape(self, serve, page, folder, kind):
        opened = page(serve(kind))
        opened.set_input_files("#file", photo(folder))
        results(opened).nth(1).click()
        opened.wait_for_selector("dialog[open] svg image >> nth=1", state="attached")
        assert opened.locator("#dialog-title").inner_text().startswith("2 of ")
        if kind == "whole":
            assert "as a whole" in opened.locator("dialog [role=status]").inner_text()
            assert opened.locator("dialog svg line").count() == 0
        else:
            assert opened.locator("dialog svg line").count() >= 10
            assert "agree on one view" in opened.locator("dialog [role=status]").inner_text()
            opened.uncheck("dialog input[type=checkbox]")
            assert not opened.locator("dialog svg line").first.is_visible()
        opened.keyboard.press("Escape")
        opened.wait_for_selector("dialog:not([open])", state="attached")
        eventually(opened, "location.hash === '#/upload'")

    def test_arrows_go_on(self, serve, page):
        opened = page(serve("bag"), "#/item/0-left.png")
        results(opened).first.click()
        title = opened.locator("#dialog-title")
        assert title.inner_text() == "1 of 9: 0-right.png"
        opened.keyboard.press("ArrowRight")
        eventually(opened, "document.querySelector('#dialog-title').textContent[0] === '2'")
        opened.keyboard.press("ArrowLeft")
        eventually(opened, "document.querySelector('#dialog-title').textContent[0] === '1'")
        opened.keyboard.press("ArrowLeft")
        assert title.inner_text().startswith("1 of")
        # One step back leaves the results as they were: steps between them are no history.
        opened.go_back()
        opened.wait_for_selector("dialog:not([open])", state="attached")
        eventually(opened, "location.hash === '#/item/0-left.png'")

    def test_a_deep_link_opens_what_it_names(self, serve, page):
        opened = page(serve("bag"), "#/item/3-left.png/match/7")
        opened.wait_for_selector("dialog[open]")
        assert "3-right.png" in opened.locator("#dialog-title").inner_text()
        opened.reload()
        opened.wait_for_selector("dialog[open]")

    def test_a_name_is_shown_and_never_run(self, serve, page):
        server = serve("bag")
        opened = page(server)
        opened.locator(".pictures a", has_text=ODD).click()
        results(opened)
        assert opened.locator("h1").inner_text() == ODD
        assert opened.locator("main b", has_text="&").count() == 0
        opened.go_back()
        opened.wait_for_selector("text=Or take one")

    def test_only_where(self, serve, page, make, folder):
        """Metadata narrow a search, by item and by picture; what is wrong is told."""
        run = vwkit.Run.open(serve("whole").run.folder)
        for item in run.items:
            object.__setattr__(item, "metadata", {"price": item.row, "shop": "a"})
        server = make(run)
        opened = page(server, "#/item/0-left.png")
        assert results(opened).count() == 9
        opened.fill("#where", "price < 4")
        opened.keyboard.press("Enter")
        eventually(opened, "document.querySelectorAll('.pictures a').length === 3")
        opened.fill("#where", "prize < 4")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("[role=alert] >> text=price")
        opened.goto(server.url)
        opened.set_input_files("#file", photo(folder))
        assert results(opened).count() == 10
        opened.fill("#where", "price >= 8")
        opened.keyboard.press("Enter")
        eventually(opened, "document.querySelectorAll('.pictures a').length === 2")

    def test_dropped_and_pasted(self, serve, page, folder):
        opened = page(serve("bag"))
        opened.wait_for_selector(".drop")
        bring(opened, "drop", photo(folder, "1-left.png"), "image/png")
        assert results(opened).first.locator(".id").inner_text() == "1-left.png"
        bring(opened, "paste", photo(folder, "4-left.png"), "image/png")
        eventually(opened, "document.querySelector('.pictures .id').textContent === '4-left.png'")

    @pytest.mark.parametrize("way", ["drop", "paste"])
    def test_what_is_no_picture_is_told(self, serve, page, folder, tmp_path, way):
        (tmp_path / "notes.txt").write_text("no picture")
        opened = page(serve("bag"))
        opened.wait_for_selector(".drop")
        bring(opened, way, str(tmp_path / "notes.txt"), "text/plain")
        opened.wait_for_selector("[role=alert]:visible")
        said = opened.locator("#alert span").inner_text()
        assert said.startswith("The upload is no picture that can be used")
        assert opened.locator(".drop").is_visible()
        opened.click("#alert button")
        assert not opened.locator("#alert").is_visible()

    def test_too_large_is_told_before_it_is_sent(self, serve, page, make, folder):
        opened = page(make(serve("bag").run, max_upload=100))
        opened.set_input_files("#file", photo(folder))
        opened.wait_for_selector("text=this server takes up to 100")

    def test_a_format_that_browsers_do_not_show(self, serve, page, folder, tmp_path):
        with PIL.Image.open(photo(folder)) as picture:
            picture.save(tmp_path / "a.tiff")
        opened = page(serve("bag"))
        opened.set_input_files("#file", str(tmp_path / "a.tiff"))
        assert results(opened).first.locator(".id").inner_text() == "2-left.png"
        eventually(opened, "document.querySelector('.asked img').naturalWidth === 140")

    def test_when_the_server_is_gone(self, serve, page, make, folder):
        server = make(serve("bag").run)
        opened = page(server)
        opened.wait_for_selector(".drop")
        server.stop()
        opened.evaluate("location.hash = '#/item/0-left.png'")
        opened.wait_for_selector("text=The server does not answer")


def bring(page, way, path, kind):
    """Drop or paste a file, as the browser would tell of it."""
    content = list(Path(path).read_bytes())
    page.evaluate(
        """([way, content, name, kind]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], name, {type: kind}));
            const event = way === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true,
                cancelable: true}) : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
            document.body.dispatchEvent(event);
        }""",
        [way, content, path.rpartition("/")[2], kind],
    )


class TestViews:
    def test_clusters(self, serve, page):
        server = serve("groups")
        opened = page(server)
        opened.click("nav >> text=Clusters")
        opened.wait_for_selector("text=3 clusters")
        largest = server.run.clusters[0]
        opened.click(f"h2 a:text-is('Cluster {largest.number}')")
        opened.wait_for_selector("text=All clusters")
        names = opened.locator(".pictures .id").all_inner_texts()
        assert names == [item.id for item in largest.items]
        opened.locator(".pictures a").first.click()
        opened.wait_for_selector(f"text=In cluster {largest.number}")

    def test_words(self, serve, page):
        opened = page(serve("bag"), "#/words")
        opened.wait_for_selector(".word .patches img")
        opened.fill("#word", "3")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("h1:text-is('Word 3')")
        eventually(opened, "location.hash === '#/words/3'")
        opened.locator(".patches a").first.click()
        results(opened)

    def test_pictures_by_name(self, serve, page):
        opened = page(serve("bag"), "#/pictures")
        opened.wait_for_selector("text=10 pictures")
        opened.fill("#q", "right")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("text=4 pictures")

    def test_vectors_have_no_pictures(self, serve, page):
        opened = page(serve("vectors"))
        opened.wait_for_selector("text=it is searched by vectors")
        assert opened.locator("nav a").all_inner_texts() == ["Words", "Run"]
        opened.click("nav >> text=Words")
        opened.wait_for_selector("text=12 words")

    def test_unknown_places(self, serve, page):
        opened = page(serve("bag"))
        for path in ("#/item/nobody.png", "#/clusters", "#/words/999", "#/nothing", "#/%E0%A4%A"):
            opened.goto(serve("bag").url + path)
            opened.wait_for_selector("text=That did not work")
            opened.click("text=Back to the start")
            opened.wait_for_selector(".drop")


class TestForEverybody:
    def test_keyboard_only(self, serve, page):
        """From the start to a match and back without a mouse."""
        opened = page(serve("bag"))
        opened.wait_for_selector(".pictures a")

        def focused():
            return opened.evaluate(
                "(document.activeElement.innerText || document.activeElement.id || '').trim()"
            )

        opened.keyboard.press("Tab")
        assert focused() == "Skip to the content"
        for _ in range(12):
            if focused() == "file":
                break
            opened.keyboard.press("Tab")
        assert focused() == "file"
        opened.keyboard.press("Tab")
        assert focused() == "0-left.png"
        opened.keyboard.press("ArrowRight")
        assert focused() == "0-right.png"
        opened.keyboard.press("Enter")
        results(opened)
        assert opened.evaluate("document.activeElement.tagName") == "H1"
        opened.keyboard.press("Tab")
        assert "0-left.png" in focused()
        opened.keyboard.press("Enter")
        opened.wait_for_selector("dialog[open]")
        assert focused() == "Close"
        opened.wait_for_selector("dialog svg line", state="attached")
        opened.keyboard.press("Enter")
        opened.wait_for_selector("dialog:not([open])", state="attached")
        # Closed, the focus is where it was.
        assert "0-left.png" in focused()

    PATHS = ("#/", "#/pictures", "#/clusters", "#/words", "#/words/1", "#/run", "#/item/0-left.png",
             "#/item/0-left.png/match/1", "api")  # fmt: skip

    @pytest.mark.parametrize("kind", ["bag", "whole", "vectors"])
    def test_a_phone_needs_no_scrolling_to_the_side(self, serve, page, kind):
        opened = page(serve(kind), "", PHONE)
        for path in self.PATHS:
            opened.goto(serve(kind).url + path)
            opened.wait_for_selector("h1")
            opened.wait_for_timeout(150)
            wide = opened.evaluate(
                "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
            )
            assert wide <= 390, path
            small = opened.evaluate(
                "[...document.querySelectorAll('button, .button, nav a, input:not(#file)')]"
                ".filter(e => e.checkVisibility() && !e.closest('label')"
                " && e.getBoundingClientRect().height < 34).map(e => e.outerHTML)"
            )
            assert small == [], path

    def test_dark_mode_follows(self, serve, page):
        shades = []
        for scheme in ("light", "dark"):
            opened = page(serve("bag"), color_scheme=scheme)
            opened.wait_for_selector("h1")
            shades.append(
                opened.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb() ")
            )
        light, dark = (sum(map(int, shade.split(","))) for shade in shades)
        assert light > 600
        assert dark < 150

    def test_pictures_and_controls_have_names(self, serve, page):
        opened = page(serve("bag"), "#/item/0-left.png/match/1")
        opened.wait_for_selector("dialog svg line", state="attached")
        nameless = opened.evaluate(
            """[...document.querySelectorAll('img, svg, button, a, input')].filter(e =>
                !(e.getAttribute('alt') !== null || e.getAttribute('aria-label')
                  || e.innerText?.trim() || e.textContent?.trim() || e.labels?.length))
                .map(e => e.outerHTML)"""
        )
        assert nameless == []
        assert opened.evaluate("document.documentElement.lang") == "en"
        assert "0-left.png" in opened.title()
