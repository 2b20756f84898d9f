"""The script that fetches real models, as far as it goes without a network."""

import os
import subprocess
import sys
from pathlib import Path


def _fetch(repository: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(repository / "scripts" / "fetch-models"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_models_are_listed_one_a_line(repository: Path) -> None:
    code, out, _ = _fetch(repository, "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        *("ppocr-angle-classifier", "ppocr-detector", "ppocr-recognizer"),
        *("magika", "wake-words", "efficientnet-lite0"),
        *("efficientnet-lite0-pytorch", "hed", "crepe"),
    ]


def test_an_unknown_name_is_a_usage_error(repository: Path) -> None:
    code, out, err = _fetch(repository, "magika", "lenet")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith(
        "expected names among ppocr-angle-classifier, ppocr-detector, ppocr-recognizer, magika, "
        "wake-words, efficientnet-lite0, efficientnet-lite0-pytorch, hed, crepe, but got lenet"
    )


def test_without_a_network_it_says_what_to_do_and_keeps_nothing(
    repository: Path, tmp_path: Path
) -> None:
    code, out, err = _fetch(
        repository,
        "magika",
        XDG_CACHE_HOME=str(tmp_path),
        # Port 9 of this machine answers nothing; the user's own indexes are left out.
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
    )
    assert (code, out) == (69, "")
    assert "error: magika: pip could not fetch it; with a network or a mirror" in err
    assert "No matching distribution found for magika==1.0.3" in err
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert [name for name in left if name != ".magika.lock"] == []
