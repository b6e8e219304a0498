"""Configs: defaults, ``extends:``, overrides, and errors that say where, what and how to mend it."""

import json
import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from masr.config import Config, Level, Section, Soup
from masr.config_files import ConfigError, config_yaml, load_config, save_config

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(ROOT.glob("egs/*/conf/*.yaml"))


@pytest.fixture
def write(tmp_path: Path):
    """``write("a.yaml", text)`` puts a config file into an own folder and returns its path."""

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return put


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_an_empty_file_gives_the_defaults_and_its_own_name(write):
    assert load_config(write("empty.yaml", "")) == Config(name="empty")


def test_a_file_needs_only_what_differs(write):
    config = load_config(write("a.yaml", "train: {updates: 7}\ndata:\n  batch_seconds: 20\n"))
    assert config.train.updates == 7
    assert config.data.batch_seconds == 20.0
    assert config.model_dump(exclude={"name": True, "train": {"updates"}, "data": {"batch_seconds"}}) == Config(
        name="x"
    ).model_dump(exclude={"name": True, "train": {"updates"}, "data": {"batch_seconds"}})


def test_numbers_may_be_written_with_an_exponent_without_a_point(write):
    assert load_config(write("a.yaml", "train: {learning_rate: 2e-3}")).train.learning_rate == 0.002


def test_the_name_is_that_of_the_file_also_when_it_extends_a_named_one(write):
    write("base.yaml", "name: something\nseed: 3\n")
    config = load_config(write("small.yaml", "extends: base.yaml\n"))
    assert (config.name, config.seed) == ("small", 3)


def test_a_chain_of_extends_merges_key_by_key_and_the_last_file_wins(write):
    write("shared/base.yaml", "train: {updates: 1, warmup: 1}\nseed: 1\ncorpus: {languages: [cs, nl]}\n")
    write("middle.yaml", "extends: shared/base.yaml\ntrain: {updates: 2}\nseed: 2\n")
    config = load_config(write("top.yaml", "extends: middle.yaml\nseed: 3\ncorpus: {languages: [el]}\n"))
    assert (config.train.warmup, config.train.updates, config.seed) == (1, 2, 3)
    assert config.corpus.languages == ["el"], "a list is replaced, not appended to"


def test_overrides_win_over_every_file_and_the_last_one_over_the_others(write):
    write("base.yaml", "seed: 1\n")
    path = write("top.yaml", "extends: base.yaml\nseed: 2\n")
    config = load_config(path, ["seed=3", "seed=4", "corpus.languages=[cs,nl]", "name=other"])
    assert (config.seed, config.corpus.languages, config.name) == (4, ["cs", "nl"], "other")


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_loop_of_extends_is_named(write, names):
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        path = write(f"{name}.yaml", f"extends: {following}.yaml\n")
    message = error_of(path)
    assert "extends itself" in message
    assert all(f"{name}.yaml" in message for name in names)


def test_extends_wants_one_file_name(write):
    message = error_of(write("top.yaml", "extends: [a.yaml, b.yaml]\n"))
    assert "top.yaml: extends" in message and "a.yaml" in message


def test_an_unknown_key_names_file_key_nearest_and_allowed_keys(write):
    write("base.yaml", "model: {encoder: {layes: 3}}\n")
    message = error_of(write("top.yaml", "extends: base.yaml\nseed: 2\n"))
    assert "base.yaml: model.encoder.layes: unknown key" in message
    assert "did you mean model.encoder.layers?" in message
    assert "Allowed here: type, subsampling," in message
    assert "top.yaml" not in message, "the file to mend is the one that sets the key"


def test_the_source_to_mend_is_the_last_one_that_sets_the_key(write):
    write("base.yaml", "seed: a\n")
    path = write("top.yaml", "extends: base.yaml\nseed: b\n")
    assert "top.yaml: seed: " in error_of(path) and "found 'b'" in error_of(path)
    assert error_of(path, "seed=c").startswith("command line: seed: ")


def test_an_unknown_override_is_blamed_on_the_command_line(write):
    message = error_of(write("a.yaml", ""), "trian.updates=3")
    assert message.startswith("command line: trian: unknown key; did you mean train?")


def test_every_mistake_is_listed_at_once(write):
    message = error_of(write("a.yaml", "seed: -1\nvocab: {kind: words}\n"), "train.updats=1")
    assert [line.split(":")[1].strip() for line in message.splitlines()] == ["seed", "vocab.kind", "train.updats"]


@pytest.mark.parametrize(
    ("yaml", "key", "expected", "found"),
    [
        ("train: {updates: many}", "train.updates", "integer", "'many'"),
        ("train: {updates: '7'}", "train.updates", "integer", "'7'"),
        ("train: {updates: -1}", "train.updates", "greater than or equal to 0", "-1"),
        ("train: {learning_rate: 0}", "train.learning_rate", "greater than 0", "0"),
        ("data: {max_bad_fraction: 2}", "data.max_bad_fraction", "less than or equal to 1", "2"),
        ("vocab: {per_language: 1}", "vocab.per_language", "boolean", "1"),
        ("corpus: {languages: cs}", "corpus.languages", "list", "'cs'"),
        ("corpus: {languages: [cs, 5]}", "corpus.languages.1", "string", "5"),
        ("corpus: {test: []}", "corpus.test", "at least 1 item", "[]"),
        ("decode: {methods: []}", "decode.methods", "at least 1 item", "[]"),
        ("features: {speed_perturbation: []}", "features.speed_perturbation", "at least 1 item", "[]"),
        ("features: {speed_perturbation: [0]}", "features.speed_perturbation.0", "greater than 0", "0"),
        ("train: 5", "train", "a group of options", "5"),
        ("train: ", "train", "a group of options", "None"),
        ("name: 5", "name", "string", "5"),
        ("name: ''", "name", "letter or digit", "''"),
        ("name: ../other", "name", "letter or digit", "'../other'"),
        ("name: a/../../other", "name", "letter or digit", "'a/../../other'"),
        ("name: a/./b", "name", "letter or digit", "'a/./b'"),
        ("name: a/", "name", "letter or digit", "'a/'"),
        ("name: 'a\\b'", "name", "letter or digit", r"'a\\b'"),
        (r'name: "a\eb"', "name", "control characters", r"'a\x1bb'"),
        (r'name: "a\nb"', "name", "control characters", r"'a\nb'"),
        (r'name: "a\u202Eb"', "name", "control characters", r"'a\u202eb'"),
        ("corpus: {name: ../x}", "corpus.name", "no /", "'../x'"),
        ("corpus: {train: ../x}", "corpus.train", "no /", "'../x'"),
        ("corpus: {dev: a/b}", "corpus.dev", "no /", "'a/b'"),
        ("corpus: {test: [ok, ../x]}", "corpus.test.1", "no /", "'../x'"),
        ("model: {self_supervised: {split: ../x}}", "model.self_supervised.split", "no /", "'../x'"),
        ("corpus: {languages: [../../x]}", "corpus.languages.0", "language code", "'../../x'"),
        ("corpus: {languages: ['']}", "corpus.languages.0", "language code", "''"),
        ("vocab: {translation: {into: ../x}}", "vocab.translation.into", "language code", "'../x'"),
        ("model: {adapt: {only: [../x]}}", "model.adapt.only.0", "language code", "'../x'"),
        (r'data_dir: "a\0b"', "data_dir", "control characters", r"'a\x00b'"),
        (r'corpus: {path: "a\nb"}', "corpus.path", "control characters", r"'a\nb'"),
        ("decode: {prompts: [orakel]}", "decode.prompts.0", "oracle", "'orakel'"),
        ("seed: 99999999999999999999", "seed", "less than", "99999999999999999999"),
    ],
)
def test_an_ill_typed_value_names_what_was_expected_and_found(write, yaml, key, expected, found):
    message = error_of(write("a.yaml", yaml))
    assert f"a.yaml: {key}: " in message
    assert expected in message
    assert message.endswith(f"found {found}")


def test_a_value_that_is_not_among_the_allowed_ones_lists_them(write):
    message = error_of(write("a.yaml", "train: {schedule: lin}\ndecode: {methods: [greedy]}"))
    assert "train.schedule" in message and "(allowed: linear, cosine, noam, constant), found 'lin'" in message
    assert "decode.methods.0" in message
    assert all(name in message for name in ("ctc-greedy", "ctc-prefix-beam", "attention-beam", "joint-beam"))


def test_an_unquoted_no_is_explained(write):
    """YAML reads a bare ``no`` as false: Norwegian needs quotes."""
    assert "quotes" in error_of(write("a.yaml", "corpus: {languages: [no]}"))
    load_config(write("a.yaml", "corpus: {languages: ['no']}"))


@pytest.mark.parametrize("written", ["fp32", "no", "'no'", "false"])
def test_full_precision_needs_no_quotes_and_is_read_by_its_old_name(write, written):
    assert load_config(write("a.yaml", f"train: {{precision: {written}}}")).train.precision == "fp32"
    assert load_config(write("b.yaml", ""), [f"train.precision={written}"]).train.precision == "fp32"
    assert load_config(write("c.yaml", "")).train.precision == "fp32"


def test_another_precision_is_refused(write):
    assert "(allowed: fp32, bf16, fp16), found True" in error_of(write("a.yaml", "train: {precision: yes}"))


@pytest.mark.parametrize("key", ["name", "corpus.name", "corpus.train", "corpus.dev", "data_dir", "vocab.output"])
def test_a_name_of_thousands_of_letters_is_refused_in_a_short_line(write, key):
    message = error_of(write("a.yaml", ""), f"{key}={'x' * 5000}")
    assert message.startswith(f"command line: {key}: ") and "\n" not in message
    assert len(message) < 600 and "(5002 characters)" in message


def test_a_name_of_300_letters_is_refused(write):
    for key in ("name", "corpus.train"):
        assert "at most" in error_of(write("a.yaml", ""), f"{key}={'x' * 300}")
    assert "too many" in error_of(Path("conf") / f"{'x' * 300}.yaml")


@pytest.mark.parametrize(
    "name", ["table-mini/row-1", "a", "a b", "мой/опыт-1", "x..y", "csv-1.5", "a/b/c", "run@2", "a=b"]
)
def test_names_that_stay_below_their_folder_are_as_free_as_before(write, name):
    assert load_config(write("a.yaml", ""), [f"name={name}"]).name == name


@pytest.mark.parametrize("code", ["cs", "sv-SE", "nan-tw", "zh-Hant-HK", "rm-sursilv", "cmn_hans", "x-klingon"])
def test_language_codes_as_corpora_have_them_are_accepted(write, code):
    assert load_config(write("a.yaml", ""), [f"corpus.languages=[{code}]"]).corpus.languages == [code]


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "values, with those that aliases stand for"),
        ("a: &a {b: *a}\n", "*a stands for nothing"),
        ("a: &a [x]\n" + "b: {<<: *a}\n", "expected"),
        ("x: " + "[" * 5000 + "]" * 5000, "levels"),
        ("x: " + "{a: " * 5000 + "1" + "}" * 5000, "levels"),
        ("".join(f"{' ' * n}a:\n" for n in range(500)), "levels"),
        ("x: [" + "1, " * 60_000 + "1]", "values"),
        ("# " + "x" * 300_000, "bytes are no config"),
        ("5\n", "expected `key: value` lines"),
        ("1.5\n", "expected `key: value` lines"),
        ("true\n", "expected `key: value` lines"),
        ("[1, 2]\n", "expected `key: value` lines"),
        ("2020-01-01\n", "2020"),
        ("name: a\0b\n", "not valid YAML"),
        (f"seed: {'9' * 5000}\n", "digits"),
        (f"seed: 0x{'f' * 5000}\n", "digits"),
        (f"train: {{updates: 0b{'1' * 20000}}}\n", "digits"),
        ("extends: ''\n", "extends: expected the name of one file, found ''"),
        ("extends: ' '\n", "extends: expected"),
        ("extends: 5\n", "extends: expected"),
        ("extends: .\n", "no such file"),
        ('extends: "a\\0b"\n', "control characters"),
        ('extends: "a\\nb"\n', "control characters"),
        (f"extends: {'x' * 300}.yaml\n", "too many"),
        ("extends: ${oc.env:NO_SUCH_VARIABLE}\n", "NO_SUCH_VARIABLE"),
        ("name: ${name}\n", "recursive|refer|Recursive"),
        ("name: ${data_dir}\ndata_dir: ${name}\n", "refer|Recursive|recursive"),
        ("a0: xxxxxxxxxx\n" + "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 40)), "is used 78 times"),
        ("!!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("? [1, 2]\n: x\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("%YAML 9.0\n---\na: 1\n", "not valid YAML"),
        ("a: !!set {x, y}\n", "a"),
        ("a: !!binary aGk=\n", "a"),
        ("null: 1\n", "a.yaml"),
        ("1: 2\n", "a.yaml"),
        ("*a\n", "a.yaml"),
        ("&a\n", ""),
        ("`\n", "not valid YAML"),
        ("a: ${\n", "a.yaml"),
        ("a: ???\n", "unknown key"),
    ],
)
def test_yaml_that_is_no_config_is_one_line(write, text, problem):
    path = write("a.yaml", text)
    if not problem:
        load_config(path)
        return
    message = error_of(path)
    assert "\n" not in message and len(message) < 1500
    assert re.search(problem.replace("*a ", r"\*a "), message) if "|" in problem else problem in message


def test_a_chain_of_extends_has_an_end(write):
    for number in range(100):
        path = write(f"a{number}.yaml", f"extends: a{number - 1}.yaml\n" if number else "")
    assert "files extend one another" in error_of(path)


def test_a_link_that_leads_to_itself_is_no_config(tmp_path):
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    assert "no such file" in error_of(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "/a/cv #1", "#1", "a # b", "/data/x: y", "x:", "*x", "&x y", "!x", "@x", "%x", "`x`", "|x", "> x", "? x", "- x",
        "-", "=", "<<", "a]", "]a", "}a", ",a", "a, b", "it's", 'a "b"', "~/corpus", "C:\\data", "a{b}", "x [1]",
        "a=b", "café", "語料", "a & b", "s3://x/y#z", "  a #b",
    ],
)  # fmt: skip
def test_text_on_the_command_line_stays_whole(write, text):
    assert load_config(write("a.yaml", ""), [f"corpus.path={text}"]).corpus.path == text


def test_lists_numbers_and_quotes_on_the_command_line_are_yaml(write):
    given = [
        "corpus.languages=[cs, nl]", "seed=7", "train.learning_rate=2e-3", "vocab.per_language=true",
        "corpus.path='a: #b'", "train.init_from=null",
        "corpus.test=['a b', c]", "decode.bias_file=", "train.soup.levels=[{objectives: ['*']}]",
    ]  # fmt: skip
    config = load_config(write("a.yaml", ""), given)
    assert config.corpus.languages == ["cs", "nl"] and config.corpus.test == ["a b", "c"]
    assert (config.seed, config.train.learning_rate, config.vocab.per_language) == (7, 0.002, True)
    assert (config.corpus.path, config.train.init_from, config.decode.bias_file) == ("a: #b", None, None)
    assert config.train.soup.levels[0].objectives == ["*"]


@pytest.mark.parametrize(
    "override",
    [
        "corpus.languages=[cs", "seed={a", "data_dir='x", f"seed={'9' * 5000}", f"seed={'[' * 3000}", ".=1", "a..b=1",
        f"{'a.' * 3000}b=1", "[=1", "a[x]=1", "corpus.languages[0]=x", "name[0]=x", "seed.x=1", "data_dir=${x",
        "data_dir=${nothing}", "data_dir=a\nb", "data_dir=a\x1bb", "\x00=1", "train=5", "corpus.languages=[a, *b]",
    ],
)  # fmt: skip
def test_a_wrong_override_is_one_line(write, override):
    message = error_of(write("a.yaml", ""), override)
    assert "\n" not in message and len(message) < 1500 and message.isprintable()


def test_a_missing_file_suggests_the_nearest(write):
    path = write("conformer.yaml", "")
    assert f"did you mean {path}?" in error_of(path.with_name("conformr.yaml"))
    assert f"did you mean {path}?" in error_of(write("top.yaml", "extends: confomer.yaml"))
    assert "conformer.yaml" in error_of(path.with_name("zzz.yml")), "all that there are, when none is near"


@pytest.mark.parametrize("text", ["a: [1\n", "train: {updates: 1, updates: 2}\n", "a: b: c\n", "seed: 1\n\tname: x\n"])
def test_invalid_yaml_names_file_and_line(write, text):
    message = error_of(write("a.yaml", text))
    assert "a.yaml: not valid YAML" in message
    assert "line " in message


def test_other_than_text_or_than_keys_is_refused(write, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml: not valid YAML" in error_of(tmp_path / "binary.yaml")
    assert "list.yaml: expected `key: value` lines" in error_of(write("list.yaml", "- 1\n"))


@pytest.mark.parametrize("override", ["train.updates", "=3", "--train.updates=3"])
def test_what_is_not_an_override_is_explained(write, override):
    assert "write section.key=value" in error_of(write("a.yaml", ""), override)


def test_recipes_ship_configs():
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_shipped_configs_load(path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_the_resolved_config_is_read_back_as_it_was(path, tmp_path):
    config = load_config(path, ["name=other", "train.precision=fp32"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert (tmp_path / "config.yaml").read_text() == config_yaml(config)


def options(section: type[BaseModel], prefix: str = "") -> typing.Iterator[tuple[str, str | None]]:
    """(dotted key, description) of every option that is not a group of options."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from options(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description


def test_every_option_has_a_meaning():
    listed = dict(options(Config))
    assert "model.encoder.layers" in listed
    assert [key for key, description in listed.items() if not description] == []


def test_the_schema_describes_every_option_and_forbids_others():
    schema = json.loads(json.dumps(Config.model_json_schema()))
    for group in [schema, *schema["$defs"].values()]:
        assert group["additionalProperties"] is False
        for name, option in group["properties"].items():
            assert "$ref" in option or option.get("description"), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.soup.levels=[{objectives: ['*'], weight: modo}]", "levels.0.weight: unknown key; did you mean"),
        ("train.soup.levels=[{objectives: ['*'], penalty: {begin: 1.0}}]", "penalty.begin: unknown key; .*start"),
    ],
)
def test_unknown_keys_inside_lists_are_explained(tmp_path, override, message):
    (tmp_path / "x.yaml").write_text("{}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "x.yaml", [override])


def test_the_old_default_of_pull_counts_for_nothing_where_nothing_is_pulled():
    """Saved configs say it; another value is someone's wish."""
    assert Soup(pull=0.001) == Soup()
    with pytest.raises(ValidationError, match="no level has weights=modo"):
        Soup(pull=0.5)
    assert Soup(pull=0.5, levels=[Level(objectives=["asr/*"], weights="modo")]).pull == 0.5
