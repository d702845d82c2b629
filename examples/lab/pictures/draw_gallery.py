"""Draw the pictures of the gallery by running its code: python examples/lab/pictures/draw_gallery.py."""

import os
import re
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "gallery.md"
PHOTO = ROOT / "examples" / "data" / "astronaut.jpg"


def main() -> None:
    pictures = ROOT / "docs" / "images" / "gallery"
    pictures.mkdir(exist_ok=True)
    codes = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        shutil.copy(PHOTO, "photo.jpg")
        for code in codes:
            exec(compile(code, str(PAGE), "exec"), {})
        os.remove("photo.jpg")
        for picture in sorted(Path().iterdir()):
            shutil.move(picture, pictures / picture.name)
            print(pictures / picture.name, (pictures / picture.name).stat().st_size, "bytes")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
