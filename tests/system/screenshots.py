"""``make screenshots``: pictures of the demo in Airflow's UI, for the docs.

Uses the system's Chromium (Debian: ``apt-get install chromium``); nothing is downloaded.
"""
# ruff: noqa: T201 - its output is its purpose

import contextlib
import os
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from tests.system.airflow_settings import USER
from tests.system.demo import Demo
from tests.system.demo_stage import no_proxies
from tests.system.services import CHECKOUT

IMAGES = CHECKOUT / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 1500, "height": 900}
GRAPHS = {"graph-finished.png": "payer_acme", "graph-failed.png": "payer_umbra"}
LOGS = {
    "log-finished.png": ("payer_acme", "claims", "outcome: succeeded"),
    "log-failed.png": ("payer_umbra", "claims", "outcome: job failed"),
}


def find_browser():
    """Return the path of a Chromium, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Camera:
    """One logged-in browser window."""

    def __init__(self, browser, url, password, view):
        self._url = url
        context = browser.new_context(viewport=SIZE, color_scheme="light")
        # Airflow's UI keeps its settings in the browser, as JSON.
        context.add_init_script(
            f"""localStorage.setItem('default_dag_view', '"{view}"');
                localStorage.setItem('log_wrap', 'true');"""
        )
        self._page = context.new_page()
        self._page.goto(f"{url}/auth/login", wait_until="networkidle")
        self._page.fill("input[name=username]", USER)
        self._page.fill("input[name=password]", password)
        self._page.click("button[type=submit]")
        self._page.wait_for_url(lambda found: "/auth/login" not in found)

    def take(self, path, words, file):
        """Open a page, wait until it shows all words, and save it."""
        self._page.goto(self._url + path, wait_until="networkidle")
        for word in words:
            self._page.get_by_text(word).last.wait_for(state="visible", timeout=30_000)
        for trace in self._page.get_by_text("AirflowFailException:").all():
            trace.click()  # folds the stack: the message says it all
        self._page.wait_for_timeout(1_500)  # the graph moves into place
        file.parent.mkdir(parents=True, exist_ok=True)
        self._page.screenshot(path=file)


@contextlib.contextmanager
def open_browser(path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            env={**os.environ},
        )
        yield browser
        browser.close()


def take_all(browser, demo, folder):
    """Take graph and task log of a finished and of the failed payer; returns the files."""
    place = browser, demo.airflow.url, demo.airflow.password
    run = quote(demo.run_id, safe="")
    camera = Camera(*place, "graph")
    for name, dag_id in GRAPHS.items():
        camera.take(f"/dags/{dag_id}/runs/{run}", ["member", "downstream"], folder / name)
    camera = Camera(*place, "grid")
    for name, (dag_id, task_id, words) in LOGS.items():
        camera.take(f"/dags/{dag_id}/runs/{run}/tasks/{task_id}", [words], folder / name)
    return [folder / name for name in (*GRAPHS, *LOGS)]


def main(folder=IMAGES):
    browser_path = find_browser()
    if browser_path is None:
        print(f"no browser found ({', '.join(BROWSERS)}); Debian: apt-get install chromium")
        return 1
    no_proxies()
    home = CHECKOUT / ".demo"
    shutil.rmtree(home, ignore_errors=True)
    demo = Demo(home, "2026-03-01")
    with contextlib.ExitStack() as stack:
        demo.open(stack)
        demo.run()
        demo.tell("taking pictures")
        with open_browser(browser_path) as browser:
            for file in take_all(browser, demo, Path(folder)):
                demo.tell(str(file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
