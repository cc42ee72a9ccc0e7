"""The Android project: complete, consistent, and what a plain JVM can prove of it."""

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from slimface.core.bundle import read_bundle
from slimface.errors import UsageError
from slimface.export.android import export_android
from slimface.export.golden import read_golden
from slimface.export.onnx import Onnx
from slimface.export.verify import read_digests
from slimface.model.build import build
from slimface.model.zoo import entry
from tests.export.conftest import say

FORM = Onnx(height=96, width=128)


@pytest.fixture(scope="module")
def project(tmp_path_factory, landmarked, pictures) -> Path:
    folder = tmp_path_factory.mktemp("android") / "app"
    export_android(landmarked, folder, FORM, pictures=pictures, provenance={"licence": "MIT"})
    return folder


def test_the_model_is_an_asset_with_its_spec_and_digests(project, landmarked):
    assets = project / "app/src/main/assets/slimface"
    said = read_bundle((assets / "spec.json").read_bytes(), where="spec.json")
    assert said.spec == landmarked.spec
    assert said.licence == "MIT"
    assert set(read_digests(assets)) == {"spec.json", "models/model.onnx"}
    assert (assets / said.files[0].path).is_file()
    assert read_golden(project / "app/src/test" / said.files[0].golden).faces.landmarks is not None


def test_sources_lie_where_their_package_says_and_are_all_there(project):
    sources = list((project / "app/src").rglob("*.kt"))
    for source in sources:
        package = re.search(r"^package ([\w.]+)", source.read_text(), re.MULTILINE)
        assert package is not None
        assert source.parent.as_posix().endswith("kotlin/" + package[1].replace(".", "/"))
    text = "".join(source.read_text() for source in sources)
    own = set(re.findall(r"^import slimface\.(\w+)", text, re.MULTILINE))
    assert all(re.search(rf"^(class|object|fun) {name}\b", text, re.MULTILINE) for name in own)


def test_resources_that_are_named_exist(project):
    values = ET.parse(project / "app/src/main/res/values/strings.xml").getroot()
    layout = ET.parse(project / "app/src/main/res/layout/main.xml").getroot()
    manifest = ET.parse(project / "app/src/main/AndroidManifest.xml").getroot()
    android = "{http://schemas.android.com/apk/res/android}"
    known = {(kind.tag, kind.get("name")) for kind in values}
    known |= {("id", (one.get(f"{android}id") or "").removeprefix("@+id/")) for one in layout}
    known |= {("layout", "main")}
    text = "".join(source.read_text() for source in (project / "app/src/main").rglob("*.kt"))
    named = set(re.findall(r"\bR\.(\w+)\.(\w+)", text))
    for element in (*layout.iter(), *manifest.iter()):
        for value in element.attrib.values():
            if value.startswith("@string/"):
                named.add(("string", value.removeprefix("@string/")))
    assert named <= known
    name = manifest.find("application/activity")
    assert name is not None
    assert f"class {name.get(f'{android}name', '').removeprefix('.')}" in text


def test_libraries_that_are_named_have_one_version_and_the_readme_says_it(project):
    catalog = tomllib.loads((project / "gradle/libs.versions.toml").read_text())
    build_file = (project / "app/build.gradle.kts").read_text()
    aliases = {name.replace("-", ".") for name in catalog["libraries"]}
    used = set(re.findall(r"mplementation\(libs\.([\w.]+)\)", build_file))
    assert used == aliases
    references = [*catalog["libraries"].values(), *catalog["plugins"].values()]
    assert {one["version"]["ref"] for one in references} == set(catalog["versions"])
    readme = (project / "README.md").read_text()
    for name in ("agp", "camera", "onnxruntime"):
        assert catalog["versions"][name] in readme


@pytest.mark.slow
def test_the_golden_picture_passes_on_a_plain_jvm(kotlin, project, tmp_path):
    (tmp_path / "golden").symlink_to(project / "app/src/test/golden")
    (tmp_path / "spec.json").symlink_to(project / "app/src/main/assets/slimface/spec.json")
    code, said = say(*kotlin, "slimface.GoldenKt", tmp_path)
    assert code == 0, said


def test_a_cascade_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--format web"):
        export_android(build(entry("mtcnn").spec, seed=0), tmp_path / "a", FORM)
    assert not any(tmp_path.iterdir())
