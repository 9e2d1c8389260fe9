"""What ``pip install .`` makes, outside of the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT     = Path(__file__).parents[2]
PACKAGES = ("attune", "golden", "hw", "sim")
PIP      = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def call(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_wheel_runs_outside_the_checkout(tmp_path):
    """The cycle model on a machine of a file, its C++, weights, presets and templates among what
    was installed; nothing is written beside them."""
    source, site, here = tmp_path / "source", tmp_path / "site", tmp_path / "here"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name,
                        ignore=shutil.ignore_patterns("__pycache__", "elec4848-32*", "unet-*",
                                                      "attunet-*", "elec4848-ds*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    call(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path),
         str(source))
    wheel, = tmp_path.glob("attune-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert inside == {f"{name}/{file}" for name in PACKAGES for file in files(source / name)
                      if not file.endswith(("README.md", ".png"))}

    call(*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", str(site),
         str(wheel))
    before = files(site)
    here.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1",
           "XDG_CACHE_HOME": str(tmp_path / "cache")}
    attune = [sys.executable, str(site / "bin" / "attune")]
    (here / "my.toml").write_text('base = "tiny"\n')
    said = call(*attune, "sim", "--config", "my.toml", "--engine", "model", "--width", "8",
                "--size", "16", cwd=here, env=env)
    assert "by the exact cycle model" in said
    assert (here / "reports" / "latest" / "report.html").is_file()
    assert '"command": "attune sim MODEL=elec4848 CONFIG=my.toml ENGINE=model' in (
        here / "reports" / "latest" / "report.json").read_text()
    assert sorted(path.name for path in here.iterdir()) == ["my.toml", "reports"]
    assert list((tmp_path / "cache" / "attune").glob("machine-*/*.so"))
    assert files(site) == before

    assert call(*attune, "version", cwd=here, env=env) == "attune 0.1.0\n"
    assert "attune mutants" not in call(*attune, "help", cwd=here, env=env)
    wrong = subprocess.run([*attune, "page", "none"], cwd=here, env=env, capture_output=True,
                           text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr == ("error: No file 'none/report.json': no run is there; `attune sim` "
                            "makes one\n")
