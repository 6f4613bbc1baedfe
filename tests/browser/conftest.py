"""A real browser, an atlas of an invented study with hostile names, and a page that fails its test where the console shows an error."""

import pytest

from helpers import atlas as atlases
from helpers import debian, synthetic
from sft_atlas.atlas import write_atlas

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (make env)")

LIBRARY = "libatomic.so.1"  # of Playwright's driver, a Node.js; a machine with a compiler has it


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without a window."""
    needed = (LIBRARY,) if atlases.chromium() else ("chromium", LIBRARY)
    reason = debian.install(("chromium", "libatomic1"), needed)
    if not (path := atlases.chromium()) or reason:
        pytest.skip(f"needs a Chromium, or name one in CHROMIUM, and {LIBRARY}: apt-get install chromium libatomic1 ({reason})")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def atlas(tmp_path_factory):
    """The folder of an atlas whose models, sets, benchmarks and recipes have hostile labels; one checkpoint lacks its scores."""
    root = tmp_path_factory.mktemp("study") / "synthetic"
    study = atlases.hostile_study(models=2, datasets=4, trajectories=False, leave_one_out=False)
    synthetic.write(root, study)
    tables = synthetic.every_table(study, root)
    preflight = f"Preflight: what the model is trained on.\n\nsamples 1\n\n--- row 0: 9 tokens\n<bos>{atlases.HOSTILE[0]} =[[ {atlases.HOSTILE[1]}<eos>]]\n"
    (root / "runs/alder-1b/arith/full-256/preflight.txt").write_text(preflight)
    for checkpoint in ("base/base/epoch-0", "arith/full-256/epoch-3"):
        atlases.with_answers(root, f"alder-1b/{checkpoint}", "short", "sums", atlases.HOSTILE_ANSWERS)
    lost = ("alder-1b", "logic", "lora-256", 3)
    for name in ("scores", "gains"):
        tables[name] = tables[name].filter(~synthetic.at(*lost))
    shown = write_atlas.of_study(study, tables, root, atlases.figures(root / "figures"))
    write_atlas.write(root / "atlas", shown, study["study"], "about", write_atlas.PAGES)
    return root / "atlas"


@pytest.fixture
def errors():
    """What the console of the page shows as error or warning, and what it asks of a network; a test that expects some clears it."""
    return []


@pytest.fixture(params=[{}], ids=[""])
def page(browser, errors, request):
    """A page of the browser (parameters: those of a context, such as the size). Errors in its console fail the test that uses it."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **request.param})
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda asked: errors.append(asked.url) if asked.url.split(":")[0] not in ("file", "data", "blob") else None)
    opened.set_default_timeout(120_000)  # milliseconds; a busy machine takes 15 s for a page now and then
    yield opened
    context.close()
    assert errors == []


@pytest.fixture
def visit(page, atlas):
    """Open a page of the atlas, such as ``explorer.html``, and wait until it has shown its data."""

    def go(name, folder=None):
        page.goto(atlases.address(folder or atlas, name))
        page.wait_for_selector("body[data-ready]")
        return page

    return go
