"""What `make test-wheel` refuses before it runs a test; the rest of it is done at a release."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from scripts import script


def test_a_wheel_without_a_file_of_the_package_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "src" / "opengrit"
    (package / "reports").mkdir(parents=True)
    for name in ("py.typed", "reports/page.css"):
        (package / name).write_text("")
    wheel = tmp_path / "opengrit.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("opengrit/py.typed", "")
    with pytest.raises(SystemExit, match=r"lacks opengrit/reports/page\.css"):
        script("wheel_test").check_whole(wheel, tmp_path)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("opengrit/reports/page.css", "")
    script("wheel_test").check_whole(wheel, tmp_path)
