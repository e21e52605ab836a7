import contextlib
import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.packages import HEAD
from tidemill_models.errors import ModelPackageError
from tidemill_models.manifest import Manifest
from tidemill_models.package_specs import Defaults, ScalingPolicy

FILES = "".join(
    f'"{name}" = {{ sha256 = "{"0" * 64}", bytes = 5 }}\n' for name in ("model.onnx", "tokenizer.json", "chat.jinja")
)
GOOD = HEAD + FILES


def test_a_manifest_is_read_with_its_defaults():
    manifest = Manifest.from_toml(GOOD)
    assert manifest.name == "tiny"
    assert manifest.decoder is not None
    assert manifest.decoder.eos_token_ids == (1,)
    assert manifest.chat is not None
    assert manifest.chat.templates == {"default": "chat.jinja"}
    assert manifest.defaults == Defaults(max_tokens=300, temperature=0.5, top_p=0.9, top_k=0)
    assert manifest.scaling == ScalingPolicy(0, 1, 8, 7200, 8)
    assert manifest.prices.session_per_second == 10_000
    assert manifest.files["model.onnx"].bytes == 5


def test_json_holds_the_whole_manifest():
    for text in (GOOD, GOOD.replace("bos_token_id = 0\n", ""), without_table("chat")):
        manifest = Manifest.from_toml(text)
        again = Manifest.from_json(manifest.to_json())
        assert again == manifest
        assert again.digest == manifest.digest


def test_the_digest_says_whether_two_manifests_mean_the_same():
    digest = Manifest.from_toml(GOOD).digest
    assert len(digest) == 64
    spelled_out = GOOD.replace("[files]", "[defaults]\ntop_k = 0\ntemperature = 0.5\n[files]")
    assert Manifest.from_toml("# a comment\n" + spelled_out).digest == digest
    assert Manifest.from_toml(GOOD.replace("bytes = 5", "bytes = 6")).digest != digest
    assert Manifest.from_toml(GOOD.replace("eos_token_ids = [1]", "eos_token_ids = [1, 2]")).digest != digest


def test_a_decoder_may_share_prefixes_and_bound_its_cache():
    plain = Manifest.from_toml(GOOD)
    assert plain.decoder is not None
    assert (plain.decoder.shared_prefixes, plain.decoder.cache_tokens) == (False, None)
    assert "shared_prefixes" not in plain.to_json()
    length = plain.decoder.context_length
    text = GOOD.replace("[decoder]\n", f"[decoder]\nshared_prefixes = true\ncache_tokens = {4 * length}\n")
    manifest = Manifest.from_toml(text)
    assert manifest.decoder is not None
    assert (manifest.decoder.shared_prefixes, manifest.decoder.cache_tokens) == (True, 4 * length)
    assert Manifest.from_json(manifest.to_json()) == manifest
    for wrong in ("shared_prefixes = 1", f"cache_tokens = {length - 1}"):
        with pytest.raises(ModelPackageError):
            Manifest.from_toml(GOOD.replace("[decoder]\n", f"[decoder]\n{wrong}\n"))


def without_table(name: str) -> str:
    lines, keep = [], True
    for line in GOOD.splitlines(keepends=True):
        if line.startswith("["):
            keep = not line.startswith((f"[{name}]", f"[{name}."))
        lines.append(line if keep else "")
    return "".join(lines)


@pytest.mark.parametrize(
    ("old", "new", "key", "sentence"),
    [
        ("format = 1", "format = 2", "format", "must be from 1 to 1, not 2"),
        ("format = 1\n", "", "format", "is missing"),
        ('name = "tiny"', 'name = "Tiny"', "name", "must match"),
        ('name = "tiny"', 'name = "../etc"', "name", "must match"),
        ('name = "tiny"', f'name = "{"a" * 65}"', "name", "must match"),
        ('name = "tiny"', "name = 5", "name", "must be a string, not an integer"),
        ('license = "Apache-2.0"', 'license = ""', "license", "1 to 255 characters, not 0"),
        ('license = "Apache-2.0"', 'lisence = "Apache-2.0"', "license", "is missing"),
        ('engine = "decoder"', 'engine = "gpt"', "engine", "must be one of decoder, tensor, triton"),
        ('engine = "decoder"', 'engine = "tensor"', "decoder", "is not a known key"),
        ("[decoder]", "[decoder]\nbeam = 4", "decoder.beam", "is not a known key"),
        ("context_length = 64", "context_length = 1", "decoder.context_length", "must be from 2 to"),
        ("context_length = 64", "context_length = true", "decoder.context_length", "must be an integer, not a boolean"),
        ("context_length = 64", "context_length = 64.0", "decoder.context_length", "must be an integer, not a number"),
        ("eos_token_ids = [1]", "eos_token_ids = []", "decoder.eos_token_ids", "1 to 64 items, not 0"),
        ("eos_token_ids = [1]", "eos_token_ids = 1", "decoder.eos_token_ids", "must be a list"),
        ("eos_token_ids = [1]", "eos_token_ids = [1, 1]", "decoder.eos_token_ids", "has '1' twice"),
        ("eos_token_ids = [1]", "eos_token_ids = [-1]", "decoder.eos_token_ids", "must be a token id"),
        ('graph = "model.onnx"', 'graph = "other.onnx"', "decoder.graph", "which [files] does not hold"),
        ('template = "default"', 'template = "other"', "chat.template", "which [chat.templates] does not hold"),
        ('default = "chat.jinja"', 'default = "x.jinja"', "chat.templates.default", "which [files] does not hold"),
        ('roles = ["system", "user", "assistant"]', 'roles = ["a b"]', "chat.roles", "each item must be"),
        ('roles = ["system", "user", "assistant"]', 'roles = ["<|end|>"]', "chat.roles", "each item must be"),
        ("session_per_second = 10_000", "session_per_second = -1", "prices.session_per_second", "must be from 0"),
        ("session_per_second = 10_000", "session_per_second = 0.5", "prices.session_per_second", "must be an integer"),
        ("session_per_second = 10_000\n", "", "prices.session_per_second", "is missing"),
        ("[files]", "[defaults]\ntop_p = 0\n[files]", "defaults.top_p", "must be above 0"),
        ("[files]", "[defaults]\ntemperature = nan\n[files]", "defaults.temperature", "must be from 0 to 2"),
        ("[files]", '[defaults]\ntemperature = "hot"\n[files]', "defaults.temperature", "must be a number"),
        ("[files]", "[scaling]\nmin_replicas = 2\n[files]", "scaling.min_replicas", "must be from 0 to 1, not 2"),
        ("[files]", "[scaling]\nslots = 0\n[files]", "scaling.slots", "must be from 1 to 1024"),
        ("[files]", '[files]\n"/etc/passwd" = {}', "files./etc/passwd", "absolute"),
        ("[files]", '[files]\n"a/../../b" = {}', "files.a/../../b", "'..'"),
        ("[files]", '[files]\n"a//b" = {}', "files.a//b", "empty parts"),
        ("[files]", '[files]\n"a\\\\b" = {}', "files.a\\b", "without a backslash"),
        ("[files]", '[files]\n"a\\u0000b" = {}', "files.a\0b", "printable"),
        ("[files]", '[files]\n"model.toml" = {}', "files.model.toml", "is the manifest itself"),
        ("[files]", '[files]\n"x" = 5', "files.x", "must be a table, not an integer"),
        ("[files]", '[files]\nx = { sha256 = "ab", bytes = 1 }', "files.x.sha256", "64 hex digits"),
        ("bytes = 5", "bytes = -5", "files.model.onnx.bytes", "must be from 0"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_key(old, new, key, sentence):
    assert old in GOOD
    with pytest.raises(ModelPackageError) as caught:
        Manifest.from_toml(GOOD.replace(old, new, 1), path="some/model.toml")
    assert caught.value.key == key
    assert sentence in caught.value.sentence
    assert str(caught.value).startswith(f"some/model.toml: {key}: ")


@pytest.mark.parametrize("text", ["no toml", "a = [[[", "a = " + "[" * 5000, "\0"])
def test_what_is_no_toml_is_refused(text):
    with pytest.raises(ModelPackageError, match="is not valid TOML"):
        Manifest.from_toml(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.data())
def test_no_value_anywhere_brings_the_reader_down(data):
    """Every key, one at a time, gets an arbitrary value: the manifest is read, or refused by its own error."""
    tables = tomllib.loads(GOOD)
    place = data.draw(st.sampled_from([tables, tables["decoder"], tables["chat"], tables["prices"], tables["files"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    with contextlib.suppress(ModelPackageError):
        Manifest.from_json(json.dumps(tables))
