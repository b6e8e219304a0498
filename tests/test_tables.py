"""Tables of experiments: what is run, what is printed, what is refused. ``run.sh`` is a stand-in here."""

import json
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest

from masr import cli
from masr.config_files import ConfigError, load_config
from masr.decode.search import result_names
from masr.tables import experiment, finished, load_table, print_table, run_table

ROOT = Path(__file__).parents[1]
TABLES = sorted(ROOT.glob("egs/*/tables/*.yaml"))
RUN = """#!/usr/bin/env bash
echo "$*" >>calls
for word in "$@"; do
  case $word in name=*) name=${word#name=} ;; seed=*) seed=${word#seed=} ;; esac
done
[[ $name == *broken* ]] && exit 1
mkdir -p exp/$name/score/ctc-greedy/test
echo '{"parameters": 2000000, "train_seconds": 90, "audio_seconds": 7200}' >exp/$name/training.json
rate=0.2$seed
[[ $name == *b-* ]] && rate=0.1$seed
language="{\\"cer\\": {\\"rate\\": $rate}, \\"wer\\": {\\"rate\\": 0.5}}"
echo "{\\"macro\\": $language, \\"languages\\": {\\"cs\\": $language}, \\"real_time_factor\\": 0.01}" \\
  >exp/$name/score/ctc-greedy/test/metrics.json
shift 4
PYTHON -m masr.cli config conf/x.yaml "$@" >exp/$name/config.yaml
echo '{}' >exp/$name/score/complete.json
"""
TABLE = """
title: Some
config: conf/x.yaml
method: ctc-greedy
seeds: [1, 3]
columns: [cer, cer/*, parameters, training, rtf]
rows:
  a: {label: The first, paper: {cer: 21.5}}
  b: {config: conf/y.yaml, overrides: [model.ctc.weight=0.5]}
scales: {mini: [train.updates=3]}
"""


NEEDS = """
needs: {base/made: touch base/made}
rows:
  a: {needs: {"{table}-{seed}": "touch {table}-{seed}"}}
  b: {needs: {never: "true"}}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """``tables/some.yaml`` of a recipe whose experiments take no time."""
    (tmp_path / "run.sh").write_text(RUN.replace("PYTHON", sys.executable))
    (tmp_path / "conf").mkdir()
    for name in "xy":
        (tmp_path / f"conf/{name}.yaml").write_text("")
    (tmp_path / "run.sh").chmod(stat.S_IRWXU)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/some.yaml").write_text(TABLE)
    return tmp_path / "tables/some.yaml"


def calls(table: Path) -> list[str]:
    return (table.parents[1] / "calls").read_text().splitlines()


def test_what_rows_start_from_is_made_where_it_is_missing(table):
    """A row without what it needs is not run."""
    recipe = table.parents[1]
    (recipe / "base").mkdir()
    table.write_text(TABLE.partition("rows:")[0] + NEEDS)
    assert run_table(table) == ["some/b-1", "some/b-3"]
    assert (recipe / "base/made").is_file() and (recipe / "some-1").is_file() and (recipe / "some-3").is_file()
    assert "b-" not in (recipe / "calls").read_text()
    made = (recipe / "base/made").stat().st_mtime_ns
    run_table(table, rows=["b"])
    assert (recipe / "base/made").stat().st_mtime_ns == made


def test_every_row_is_run_once_with_every_seed(table):
    run_table(table, processes=2)
    run_table(table)
    assert calls(table) == [
        "--conf conf/x.yaml --nproc 2 name=some/a-1 seed=1",
        "--conf conf/x.yaml --nproc 2 name=some/a-3 seed=3",
        "--conf conf/y.yaml --nproc 2 model.ctc.weight=0.5 name=some/b-1 seed=1",
        "--conf conf/y.yaml --nproc 2 model.ctc.weight=0.5 name=some/b-3 seed=3",
    ]


def test_a_row_may_have_seeds_of_its_own(table):
    table.write_text(TABLE.replace("{config: conf/y.yaml", "{seeds: [3], config: conf/y.yaml"))
    run_table(table)
    assert [call.rpartition("name=")[2] for call in calls(table)] == [
        "some/a-1 seed=1", "some/a-3 seed=3", "some/b-3 seed=3"
    ]  # fmt: skip
    assert print_table(table).endswith("| 1 |")


def test_a_table_extends_another(table):
    other = table.with_name("large.yaml")
    other.write_text(
        "extends: some.yaml\noverrides: [train.updates=9]\nscales: {mini: null}\nrows:\n  a: {paper: {cer: 19.5}}\n"
    )
    content = load_table(other)
    assert [row.paper for row in content.rows.values()] == [{"cer": 19.5}, {}] and content.rows[
        "a"
    ].label == "The first"
    assert not content.scales
    run_table(other, rows=["b"])
    each = "--conf conf/y.yaml --nproc 1 train.updates=9 model.ctc.weight=0.5 name=large/b-"
    assert calls(table) == [f"{each}1 seed=1", f"{each}3 seed=3"]


def test_published_figures_are_not_run_again(table):
    results = table.parents[1] / "results"
    run_table(table, rows=["a"], results=results)
    published = print_table(table, rows=["a"])
    assert sorted(file.name for file in (results / "a-1").rglob("*") if file.is_file()) == [
        "complete.json", "config.yaml", "metrics.json", "training.json"
    ]  # fmt: skip
    shutil.rmtree(table.parents[1] / "exp")
    run_table(table, rows=["a"], results=results)
    assert len(calls(table)) == 2, "one for each seed"
    assert print_table(table, rows=["a"], results=results) == published
    assert print_table(table, rows=["a"]).endswith("| 0 |")
    table.write_text(TABLE.replace("{label: The first", "{overrides: [train.updates=9], label: The first"))
    assert print_table(table, rows=["a"], results=results).endswith("| 0 |"), "figures of other options"


def test_means_deviations_the_best_and_the_papers_figures_are_printed(table):
    assert run_table(table) == []
    lines = print_table(table).splitlines()
    assert lines[0] == "### Some"
    assert lines[2] == "|  | CER | CER cs | M parameters | training, min | real-time factor | runs |"
    row = "| The first | 22.00 ± 1.41 (21.50) | 22.00 ± 1.41 | 2.00 | 1.5 ± 0.0 | 0.0100 ± 0.0000 | 2 |"
    assert lines[4] == row
    assert lines[5].startswith("| b | **12.00 ± 1.41** | **12.00 ± 1.41** |")


def test_rows_are_compared_seed_by_seed(table):
    table.write_text(TABLE.replace("overrides:", "against: a, overrides:"))
    run_table(table, rows=["a"])
    assert print_table(table).splitlines()[-1].endswith("| - | 0 |")
    run_table(table)
    lines = print_table(table).splitlines()
    assert lines[2].endswith("| real-time factor | CER against | runs |")
    assert lines[-2].endswith("|  | 2 |") and lines[-1].endswith("| a: -10.00 ± 0.00 | 2 |")
    metrics = table.parents[1] / "exp/some/b-3/score/ctc-greedy/test/metrics.json"
    metrics.write_text(metrics.read_text().replace("0.13", "0.14"))
    assert print_table(table).splitlines()[-1].endswith("| a: -9.50 ± 6.35 | 2 |"), "t of one degree of freedom: 12.7"
    assert "a: -9.50" in print_table(table, rows=["b"])
    table.write_text(table.read_text() + "compared: [wer, cer/cs]\n")
    lines = print_table(table).splitlines()
    assert lines[2].endswith("| WER against | CER cs against | runs |")
    assert lines[-1].endswith("| a: +0.00 ± 0.00 | a: -9.50 ± 6.35 | 2 |"), "every word error rate is 0.5"


def add_decode_files(table: Path, *, counts_of_row: dict[str, int], seeds: tuple[int, ...] = (1, 3)) -> None:
    """Forty recordings of eight speakers for each run, of which so many in five are wrong in a row."""
    for row, wrong in counts_of_row.items():
        for seed in seeds:
            lines = []
            for number in range(40):
                hypothesis = "a b" if number % 5 >= wrong else "a x"
                line = {"id": f"{number:02}", "language": "cs", "speaker": f"s{number % 8}", "reference": "a b"}
                lines.append(json.dumps(line | {"hypothesis": hypothesis, "seconds": 0.1, "duration": 1.0}) + "\n")
            file = table.parents[1] / f"exp/some/{row}-{seed}/decode/ctc-greedy/test.jsonl"
            file.parent.mkdir(parents=True)
            file.write_text("".join(lines))


def test_rows_are_compared_recording_by_recording_where_their_errors_are_known(table):
    """From decode files, and from what is kept of them in results."""
    table.write_text(TABLE.replace("overrides:", "against: a, overrides:") + "compared: [cer, wer/cs]\n")
    run_table(table)
    add_decode_files(table, counts_of_row={"a": 3, "b": 1})
    printed = print_table(table)
    row = next(line for line in printed.splitlines() if line.startswith("| b |"))
    assert "| a: -10.00 ± 0.00 (recordings ± " in row and ", p 0.00" in row
    assert "| a: +0.00 ± 0.00 (recordings ± " in row, "words are not in the figures of the stand-in"
    assert "paired bootstrap in blocks of a speaker" in printed and "†" not in printed
    results = table.parents[1] / "results"
    run_table(table, results=results)
    kept = results / "b-3/score/ctc-greedy/test/counts.jsonl.gz"
    assert kept.is_file() and not (results / "b-3/decode").exists()
    shutil.rmtree(table.parents[1] / "exp")
    assert print_table(table, results=results) == printed


def test_recordings_that_a_run_lacks_are_named_below_the_table(table):
    table.write_text(TABLE.replace("overrides:", "against: a, overrides:"))
    run_table(table)
    add_decode_files(table, counts_of_row={"a": 3, "b": 1})
    file = table.parents[1] / "exp/some/b-3/decode/ctc-greedy/test.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    printed = print_table(table)
    assert "1 recording is not in all files and was left out: 39." in printed
    assert "a: -13.68 ± 0.00 (recordings ± " in printed, "8 wrong letters of 117 instead of 24"


NESTED = """
title: Nested
config: conf/x.yaml
method: ctc-greedy
seeds: [1, 3]
columns: [cer]
rows:
  a5: {overrides: [train.updates=5]}
  b5: {overrides: [train.updates=6], against: a5}
  a10: {overrides: [train.updates=7]}
  b10: {overrides: [train.updates=8], against: a10}
pooled:
  b: {label: B, rows: [b5, b10]}
  a: {rows: [a10], against: [a5]}
"""


def set_rate(table: Path, run: str, rate: float) -> None:
    file = table.parents[1] / f"exp/some/{run}/score/ctc-greedy/test/metrics.json"
    metrics = json.loads(file.read_text())
    metrics["macro"]["cer"]["rate"] = rate
    file.write_text(json.dumps(metrics))


def test_conditions_that_share_training_data_give_one_difference_a_seed(table):
    """Differences of +1 and +3 points with one seed, of +4 and +6 with the other: their means are 2 and 5."""
    table.write_text(NESTED)
    run_table(table)
    for run, rate in {"a5-1": 0.30, "b5-1": 0.31, "a10-1": 0.20, "b10-1": 0.23}.items():
        set_rate(table, run, rate)
    for run, rate in {"a5-3": 0.30, "b5-3": 0.34, "a10-3": 0.20, "b10-3": 0.26}.items():
        set_rate(table, run, rate)
    lines = print_table(table).splitlines()
    assert lines[-4:] == [
        "| by seed | CER against | seeds |", "|---|--:|--:|", "| B | +3.50 ± 19.06 | 2 |", "| a | -10.00 ± 0.00 | 2 |"
    ]  # fmt: skip
    shutil.rmtree(table.parents[1] / "exp/some/b10-3")
    lines = print_table(table).splitlines()
    assert lines[-2] == "| B | +2.00 | 1 |", "one seed has no interval"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows: [b5, b10]", "rows: [b5, c]", "pooled: no row 'c' to compare"),
        ("rows: [b5, b10]", "rows: [b5, a10]", "pooled: no row '' to compare"),
        ("against: [a5]", "against: [a5, b5]", "pooled: 1 rows against 2, expected as many"),
    ],
)
def test_a_bad_group_of_rows_is_refused(table, old, new, message):
    table.write_text(NESTED.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_table(table)


def test_the_errors_of_another_search_can_be_shown(table, monkeypatch, capsys):
    run_table(table, rows=["a"])
    for seed in (1, 3):
        folder = table.parents[1] / f"exp/some/a-{seed}/score"
        shutil.copytree(folder / "ctc-greedy", folder / "joint-beam")
        metrics = (folder / "joint-beam/test/metrics.json").read_text().replace("0.2", "0.3")
        (folder / "joint-beam/test/metrics.json").write_text(metrics)
    monkeypatch.setattr(sys, "argv", ["masr", "table", str(table), "a", "--show", "--method", "joint-beam"])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert "Search: joint-beam." in printed and "| The first | 32.00 ± 1.41" in printed


def test_an_override_can_name_the_seed(table):
    table.write_text(TABLE.replace("model.ctc.weight=0.5", '"train.init_from=exp/a-{seed}"'))
    run_table(table, rows=["b"])
    assert [line.split()[4] for line in calls(table)] == ["train.init_from=exp/a-1", "train.init_from=exp/a-3"]


def test_an_override_can_name_the_runs_of_the_table_and_scale(table):
    table.write_text(TABLE.replace("model.ctc.weight=0.5", '"train.init_from=exp/{table}/a-{seed}"'))
    starts = [experiment(table, load_table(table), "b", 3, scale)[1][-3] for scale in (None, "mini")]
    assert starts == ["train.init_from=exp/some/a-3", "train.init_from=exp/some-mini/a-3"]


def test_what_has_not_been_run_is_a_dash(table):
    lines = print_table(table).splitlines()
    assert lines[-2:] == ["| The first | - (21.50) | - | - | - | 0 |", "| b | - | - | - | - | 0 |"]


def test_prompts_languages_recognised_and_what_runs_have_columns(table):
    table.write_text(TABLE.replace("[cer, cer/*, parameters,", "[cer, cer@oracle+2, lid, parameters, one,"))
    run_table(table, rows=["a"])
    for seed in (1, 3):
        folder = table.parents[1] / f"exp/some/a-{seed}"
        metrics = json.loads((folder / "score/ctc-greedy/test/metrics.json").read_text())
        metrics["language_confusion"] = {"accuracy": 0.9}
        (folder / "score/ctc-greedy/test/metrics.json").write_text(json.dumps(metrics))
        metrics["macro"]["cer"]["rate"] -= 0.1
        (folder / "score/ctc-greedy@oracle+2/test").mkdir(parents=True)
        (folder / "score/ctc-greedy@oracle+2/test/metrics.json").write_text(json.dumps(metrics))
        training = json.loads((folder / "training.json").read_text()) | {"parameters_of_one_language": 1500000}
        (folder / "training.json").write_text(json.dumps(training))
    lines = print_table(table, rows=["a"]).splitlines()
    assert lines[2].startswith("|  | CER | CER oracle+2 | language right | M parameters | M parameters, one language |")
    assert lines[4].startswith("| The first | 22.00 ± 1.41 (21.50) | 12.00 ± 1.41 | 90.00 ± 0.00 | 2.00 | 1.50 |")


@pytest.mark.parametrize("prompt", ["", "@oracle"])
def test_translations_of_the_same_prompt_have_columns(table, prompt):
    table.write_text(TABLE.replace("[cer, cer/*,", "[cer, bleu, chrf/cs,").replace("ctc-greedy", f"ctc-greedy{prompt}"))
    run_table(table, rows=["a"])
    score = {"bleu": {"score": 11.5}, "chrf": {"score": 30.25}}
    for seed in (1, 3):
        folder = table.parents[1] / f"exp/some/a-{seed}/score"
        if prompt:
            shutil.copytree(folder / "ctc-greedy", folder / f"ctc-greedy{prompt}")
        (folder / f"translation-beam{prompt}/test").mkdir(parents=True)
        metrics = json.dumps({"macro": score, "languages": {"cs": score}})
        (folder / f"translation-beam{prompt}/test/metrics.json").write_text(metrics)
    row = print_table(table, rows=["a"]).splitlines()[4]
    assert row.startswith("| The first | 22.00 ± 1.41 (21.50) | 11.50 ± 0.00 | 30.25 ± 0.00 |")


def test_other_splits_have_columns(table):
    table.write_text(TABLE.replace("[cer, cer/*,", "[cer, cer/*, wer:test-other, cer/cs:test-other, cer:none,"))
    run_table(table, rows=["a"])
    for seed in (1, 3):
        folder = table.parents[1] / f"exp/some/a-{seed}/score/ctc-greedy"
        shutil.copytree(folder / "test", folder / "test-other")
        metrics = (folder / "test-other/metrics.json").read_text().replace("0.2", "0.3").replace("0.5", "0.45")
        (folder / "test-other/metrics.json").write_text(metrics)
    lines = print_table(table, rows=["a"]).splitlines()
    assert lines[2].startswith("|  | CER | CER cs | WER test-other | CER cs test-other | CER none |")
    row = "| The first | 22.00 ± 1.41 (21.50) | 22.00 ± 1.41 | 45.00 ± 0.00 | 32.00 ± 1.41 | - |"
    assert lines[4].startswith(row), "cer/* has no other splits"


def test_a_run_without_a_prompt_is_left_out_of_its_mean(table):
    table.write_text(TABLE.replace("[cer, cer/*,", "[cer@oracle, cer/es-419,"))
    run_table(table, rows=["a"])
    assert print_table(table).splitlines()[4].startswith("| The first | - | - |")
    source = table.parents[1] / "exp/some/a-3/score/ctc-greedy/test/metrics.json"
    target = table.parents[1] / "exp/some/a-3/score/ctc-greedy@oracle/test/metrics.json"
    target.parent.mkdir(parents=True)
    target.write_text(source.read_text())
    assert print_table(table).splitlines()[4].startswith("| The first | 23.00 | - |")


def test_a_scale_is_a_table_of_its_own(table):
    run_table(table, scale="mini", rows=["b"])
    assert (
        calls(table)[0] == "--conf conf/y.yaml --nproc 1 train.updates=3 model.ctc.weight=0.5 name=some-mini/b-1 seed=1"
    )
    with pytest.raises(ConfigError, match="there is no scale huge; known: mini"):
        run_table(table, scale="huge")


def test_a_row_may_be_another_one_at_a_scale(table):
    more = 'scales: {mini: ["corpus.languages=[cs]", "data_dir=data/{seed}"]}'
    table.write_text(TABLE.replace("weight=0.5]", f"weight=0.5], {more}"))
    options = {
        (row, s): experiment(table, load_table(table), row, 3, s)[1][:-2] for row in "ab" for s in (None, "mini")
    }
    assert options["a", "mini"] == ["train.updates=3"] and options["b", None] == ["model.ctc.weight=0.5"]
    own = ["model.ctc.weight=0.5", "corpus.languages=[cs]", "data_dir=data/3"]
    assert options["b", "mini"] == ["train.updates=3", *own]
    table.write_text(TABLE.replace("weight=0.5]", "weight=0.5], scales: {large: [train.updates=9]}"))
    with pytest.raises(ConfigError, match="rows: scales: no large among the scales of the table"):
        load_table(table)


def test_a_run_that_fails_is_named_and_the_others_go_on(table, monkeypatch, capsys):
    table.write_text(TABLE.replace("  a:", "  broken: {}\n  a:"))
    monkeypatch.setattr(sys, "argv", ["masr", "table", str(table)])
    with pytest.raises(SystemExit, match="failed: some/broken-1, some/broken-3; the same command tries them again"):
        cli.main()
    assert "| broken | - |" in capsys.readouterr().out
    assert len(calls(table)) == 6


def test_a_row_that_has_changed_is_run_again_and_its_old_figures_are_not_shown(table):
    run_table(table, rows=["b"])
    table.write_text(TABLE.replace("ctc.weight=0.5", "ctc.weight=0.7"))
    assert print_table(table).splitlines()[-1] == "| b | - | - | - | - | 0 |"
    run_table(table, rows=["b"])
    assert len(calls(table)) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Some", "titel: Some", "titel"),
        ("columns: [cer,", "columns: [rouge,", "columns: rouge; known: cer, wer"),
        ("columns: [cer,", "columns: [cer@oracle+, cer,", "columns: cer@oracle"),
        ("columns: [cer,", "columns: [cer@orcale, cer,", "columns: cer@orcale"),
        ("columns: [cer,", "columns: [CER@oracle, cer,", "columns: CER@oracle"),
        ("columns: [cer,", "columns: ['cer:', cer,", "columns: cer:"),
        ("paper: {cer:", "paper: {cerr:", "columns: cerr; known"),
        ("rows:", "rows: [", "not valid YAML"),
        ("seeds: [1, 3]", "seeds: []", "seeds"),
        ("overrides:", "against: c, overrides:", "against: no c in the table"),
    ],
)
def test_a_bad_table_is_refused(table, old, new, message):
    table.write_text(TABLE.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_table(table)


def test_unknown_rows_and_files_are_refused(table):
    with pytest.raises(ConfigError, match="no c in the table; it has a, b"):
        run_table(table, rows=["c"])
    with pytest.raises(ConfigError, match="no such file"):
        load_table(table.with_name("none.yaml"))


def test_the_command_shows_or_runs(table, monkeypatch, capsys):
    for options in (["--show"], []):
        monkeypatch.setattr(sys, "argv", ["masr", "table", str(table), "a", *options])
        with pytest.raises(SystemExit):
            cli.main()
    assert len(calls(table)) == 2
    assert "| The first | **" not in capsys.readouterr().out, "there is nothing to be better than"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_row_of_a_shipped_table_is_a_valid_config(path, monkeypatch):
    table = load_table(path)
    monkeypatch.chdir(path.parents[1])
    for scale in (None, *table.scales):
        for row, content in table.rows.items():
            name, overrides = experiment(path, table, row, table.seeds_of(row)[0], scale)
            config = load_config(content.config or table.config, overrides)
            assert config.name == name
            assert table.method in result_names(config.decode)
            splits = {column.partition(":")[2] for column in (*table.columns, *content.paper)} - {""}
            assert splits | {table.split} <= {*config.corpus.test}


BY_SEED = "| by seed | CER against | seeds |"
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "egs/*/*.md", "egs/*/results/**/*.md")
PUBLISHED = [path for path in TABLES if (path.parents[1] / "results" / path.stem).is_dir()]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_published_figure_is_recomputed_from_the_repository(path, monkeypatch):
    """Every run whose figures are kept counts, and every row has some; what is printed is what was published."""
    monkeypatch.chdir(path.parents[1])
    table, results = load_table(path), path.parents[1] / "results" / path.stem
    printed = print_table(path, results=results)
    head, _, *lines = [line for line in printed.partition("|  |")[2].partition("\n\n")[0].splitlines() if line]
    columns = [cell.strip() for cell in head.split("|")[:-1]]
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in lines]
    assert len(rows) == len(table.rows)
    assert sum(int(row[-1]) for row in rows) == len(list(results.glob("*/training.json")))
    for row in rows:
        assert row[-1] != "0"
        # Not every model names languages, and not every row is about all of them.
        unknown = [column for column, cell in zip(columns, row, strict=True) if cell == "-"]
        assert all(column == "language right" or re.fullmatch("CER [a-z]{2}", column) for column in unknown), row
    for file in results.glob("table*.md"):
        method = file.stem.partition("-")[2] or None
        expected = printed if method is None else print_table(path, results=results, method=method)
        assert file.read_text(encoding="utf-8") == expected + "\n", file


def rows_of(file: Path, head: str) -> list[list[str]]:
    """Cells of the Markdown table below this head."""
    lines = file.read_text(encoding="utf-8").splitlines()
    start = lines.index(head) + 2
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start:end]]


def test_the_readme_has_the_figures_of_the_repository():
    """Of results that were kept in another layout before."""
    recipe = ROOT / "egs/freevoices"
    readme = (recipe / "README.md").read_text(encoding="utf-8")
    encoders = recipe / "results/encoders/table.md"
    head = next(line for line in encoders.read_text(encoding="utf-8").splitlines() if line.startswith("|  |"))
    for cells in rows_of(encoders, head):
        assert f"| {' | '.join(cells[:9])} |" in readme
    trees = ("Huffman", "clustered, Mono-Map", "clustered, Whisper", "random, balanced")
    for method, name in (("joint-beam", "table-joint-beam.md"), ("attention-beam", "table.md")):
        found = {label: text for label, text, _ in rows_of(recipe / "results/hsoftmax" / name, BY_SEED)}
        flat = [found[f"{tree}, against flat"] for tree in trees]
        huffman = [found[f"{tree}, against Huffman"] for tree in trees[1:]]
        assert f"| {method}, against flat | {' | '.join(flat)} |" in readme
        assert f"| {method}, against Huffman | | {' | '.join(huffman)} |" in readme


def test_rows_of_published_tables_have_as_many_cells_as_their_heads():
    files = [file for pattern in PAGES for file in ROOT.glob(pattern)]
    assert len(files) > 15
    for file in files:
        lines = file.read_text(encoding="utf-8").replace("\\|", "").splitlines()
        for number, line in enumerate(lines):
            if line.startswith("|") and number and lines[number - 1].startswith("|"):
                assert line.count("|") == lines[number - 1].count("|"), f"{file}:{number + 1}"


def test_tables_are_shipped():
    assert {path.stem for path in TABLES} >= {"encoders", "mlma"}


def test_configs_of_whisper_write_published_text_and_published_figures_are_still_those_of_their_rows():
    """They were trained on normalised text, which their tables say."""
    for config in ROOT.glob("egs/*/conf/*whisper*.yaml"):
        assert load_config(config).vocab.text == "published", config
    for results in ROOT.glob("egs/freevoices/results/whisper_*"):
        path = ROOT / f"egs/freevoices/tables/{results.name}.yaml"
        table = load_table(path)
        runs = [(row, seed) for row in table.rows for seed in table.seeds_of(row)]
        found = {finished(path, table, row, seed, None, results) for row, seed in runs} - {None}
        assert {folder.name for folder in found} == {folder.parent.name for folder in results.glob("*/training.json")}


def test_the_command_of_a_need_is_shown_before_it_runs_and_showing_the_table_runs_none(table, monkeypatch, capsys):
    """Needs are commands: who gives a table away gives away a program."""
    recipe = table.parents[1]
    marker = recipe / "marker"
    table.write_text(TABLE + f"needs: {{some/file: 'touch {marker}'}}\n")
    monkeypatch.setattr(sys, "argv", ["masr", "table", str(table), "--show"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert not marker.exists() and not (recipe / "calls").exists()
    capsys.readouterr()
    monkeypatch.setattr(
        "masr.tables.subprocess.run", lambda command, **_: ran.append((command, capsys.readouterr().out))
    )
    ran: list[tuple[list[str], str]] = []
    run_table(table, rows=["a"])
    command, shown = ran[0]
    assert command == ["touch", str(marker)] and f"touch {marker}" in shown and "some/file" in shown


def test_no_shell_reads_the_command_of_a_need(table):
    table.write_text(TABLE + "needs: {some/file: 'touch one; touch $(echo two)'}\n")
    run_table(table, rows=["a"])
    assert (table.parents[1] / "one;").exists() and not (table.parents[1] / "two").exists()
    table.write_text(TABLE + 'needs: {some/file: "touch \'some"}\n')
    with pytest.raises(ConfigError, match="no command"):
        run_table(table, rows=["a"])


def test_results_of_a_run_in_full_precision_count_by_its_old_name(table):
    """Published configs say ``precision: 'no'``, which is now fp32."""
    run_table(table, rows=["a"])
    path = table.parents[1] / "exp/some/a-1/config.yaml"
    written = path.read_text()
    assert "precision: fp32" in written
    path.write_text(written.replace("precision: fp32", "precision: 'no'"))
    assert finished(table, load_table(table), "a", 1, None) == path.parent
