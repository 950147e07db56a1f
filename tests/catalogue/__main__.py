"""Write docs/faults.md: which test shows what happens for each fault of the catalogue."""

import sys
from pathlib import Path

from tests.catalogue.page import PAGE, render

if __name__ == "__main__":
    text = render(Path(__file__).parents[1])
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
