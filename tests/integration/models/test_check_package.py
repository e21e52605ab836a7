"""The whole check of a package, its templates rendered in their own process."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.unit.models.packages import TEMPLATE, write_manifest
from tidemill_models import digests
from tidemill_models.check import check_package
from tidemill_models.digests import digest_files
from tidemill_models.errors import ModelPackageError
from tidemill_models.package import bundled_packages
from tidemill_models.template_process import TemplateLimits
from tidemill_models.template_renderer import TemplateRenderer

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def renderer():
    with TemplateRenderer(TemplateLimits(seconds=2), num_processes=1) as one:
        yield one


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-llama-positions"])
def test_the_packages_of_the_tests_are_right(name):
    package = check_package(MODELS / name)
    assert package.manifest.files == digest_files(MODELS / name)


def test_every_bundled_package_is_right_and_the_demo_model_is_one(renderer):
    names = [check_package(folder, renderer=renderer).manifest.name for folder in bundled_packages()]
    assert names == [folder.name for folder in bundled_packages()]
    assert "tide-nano" in names


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_of_a_file_that_was_changed_that_is_told_and_not_what_is_wrong_in_it(tmp_path, name):
    folder = tmp_path / "tiny-llama"
    shutil.copytree(MODELS / "tiny-llama", folder)
    file = folder / name
    file.write_bytes(b"?" * file.stat().st_size)
    with pytest.raises(ModelPackageError, match="was changed"):
        check_package(folder)


def test_a_file_of_several_pieces_has_the_digest_of_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_PIECE_BYTES", 7)
    for size in (0, 1, 6, 7, 8, 20):
        content = bytes(range(size))
        (tmp_path / "file").write_bytes(content)
        digest = digest_files(tmp_path)["file"].sha256
        assert digest == digests._mapped_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "longer than 2 s"),
        ("{{ 'a' * 10**9 }}", "bytes of memory"),
        ("{% for i in range(100000) %}aaaaaaaaaa{% endfor %}", "renders to more than"),
        (TEMPLATE + "{{ messages.clear() }}", "unsafe"),
        ("{{ raise_exception('never') }}", "never"),
        ("Hello", "leaves out what a message of the role user says"),
        ("{{ messages[0].content | upper }}", "changes what messages say"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_its_name(tmp_path, renderer, template, sentence):
    folder = tmp_path / "tiny-llama"
    shutil.copytree(MODELS / "tiny-llama", folder)
    (folder / "chat.jinja").write_text(template)
    text = (folder / "model.toml").read_text()
    write_manifest(folder, text[: text.index("[files]")] + "[files]\n")
    with pytest.raises(ModelPackageError) as caught:
        check_package(folder, renderer=renderer)
    assert caught.value.path.endswith("chat.jinja")
    assert caught.value.key == "chat.templates.default"
    assert sentence in caught.value.sentence
