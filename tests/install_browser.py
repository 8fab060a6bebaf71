"""Installs the browser that the tests of the web chat drive, where that can be done, and fails nothing where not.

Debian's Chromium, through apt-get, for root. Elsewhere the test run's last line says what was skipped and what to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Why tests without one are skipped.
NO_BROWSER = "there is no browser"
REMEDY = "install one (as root: apt-get install chromium), or name one (CHROMIUM=/path/to/it)"
# A network that is not there is given up soon.
_APT = ("apt-get", "-qq", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=60")
_MOST_S = 600


def find_browser() -> str | None:
    """The browser that CHROMIUM names, or the first that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def is_ci() -> bool:
    """Whether nobody is there to read that tests were skipped, so that they have to run."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def is_missed() -> bool:
    """Whether the tests that need one are skipped."""
    return find_browser() is None and not is_ci()


def describe_skipped(reasons: Sequence[str]) -> str | None:
    """The closing line of a test run of whose tests these were skipped; None if a browser would change nothing."""
    number = sum(NO_BROWSER in reason for reason in reasons)
    if not number:
        return None
    return f"{number} tests of the web chat were skipped, since {NO_BROWSER}: {REMEDY}."


def install() -> None:
    """Installs it if there is none, this is root, and there is apt-get."""
    if find_browser() is not None or shutil.which("apt-get") is None or not hasattr(os, "geteuid") or os.geteuid():
        return
    print("installing Chromium for the tests of the web chat (once)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        try:
            done = subprocess.run([*_APT, *words], env=environment, capture_output=True, text=True, timeout=_MOST_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"apt-get {words[0]} did not work: {error}")
            return
        if done.returncode and words[0] == "install":
            print(f"apt-get {words[0]} did not work: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")


if __name__ == "__main__":
    install()
