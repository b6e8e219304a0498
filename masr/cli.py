"""``masr <verb>``: parses, calls one function, prints. Heavy imports happen inside a verb, so that help is instant."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from masr.errors import one_line
from masr.processes import end_with_recipe, run_as_rank
from masr.progress import LINES, printable


class Verbs(TyperGroup):
    """typer itself would end an interrupt in silence, and a file that ends too early with ``Aborted!``."""

    def invoke(self, ctx: Any) -> Any:
        with one_line():
            return super().invoke(ctx)


app = typer.Typer(
    help="Multilingual speech recognition in recipes: prepare, features, vocab, train, decode, score; then transcribe.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, cls=Verbs,
)  # fmt: skip


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"masr {version('masr')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Multilingual speech recognition in recipes: prepare, features, vocab, train, decode, score; then transcribe."""


Conf = Annotated[Path, typer.Argument(help="Config file, e.g. conf/conformer.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Options of the config, e.g. model.encoder.layers=4.")]
BiasFile = Annotated[str | None, typer.Option(help="File of words to expect, one a line.")]
Force = Annotated[bool, typer.Option("--force", help="Redo the stage even if its output is complete.")]

Verify = Annotated[
    bool, typer.Option("--verify", help="Compare what is there byte by byte, not by the size and time of files.")
]


def _stage(name: str, summary: str) -> None:
    """Adds the verb that runs one stage of a recipe."""

    def command(conf: Conf, overrides: Overrides = None, force: Force = False, verify: Verify = False) -> None:
        import importlib

        from masr.config_files import load_config

        config = load_config(conf, overrides or [])
        importlib.import_module(f"masr.stages.{name}").run(config, force, verify)

    app.command(name, help=summary)(command)


_stage("prepare", "Stage 0: the corpus as published -> validated manifests.")
_stage("features", "Stage 1: log-mel features and their statistics.")
_stage("vocab", "Stage 2: the token vocabulary.")
_stage("lm", "Language models of the training text; stage 4 makes those that it needs itself.")


@app.command("train", help="Stage 3: train, or go on from the newest checkpoint.")
def train(
    conf: Conf,
    overrides: Overrides = None,
    force: Force = False,
    nproc: Annotated[int, typer.Option(help="Processes, one a GPU or CPU core.", min=1)] = 1,
) -> None:
    """Trains in this process, or starts ``nproc`` of them and waits; a rank that a launcher started is one of them."""
    from masr import processes
    from masr.config_files import load_config

    config = load_config(conf, overrides or [])
    if nproc > 1 and not processes.is_rank():
        options = ["--force"] if force else []
        processes.run_ranks(["train", str(conf), *(overrides or []), *options, "--nproc", str(nproc)], nproc)
        return
    if processes.is_rank():
        processes.end_with_parent()
    from masr.stages import train as stage

    stage.run(config, force)


@app.command("decode", help="Stage 4: recognise the test splits with every method of the config.")
def decode(
    conf: Conf,
    overrides: Overrides = None,
    force: Force = False,
    verify: Verify = False,
    method: Annotated[list[str] | None, typer.Option(help="Instead of decode.methods; may be repeated.")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Instead of decode.prompts: all, oracle, oracle+2, wrong+1, ...; may be repeated."),
    ] = None,
    bias_file: BiasFile = None,
) -> None:
    """Writes ``exp/<name>/decode``; ValueError for methods or prompts that the model cannot do."""
    from masr.config_files import load_config
    from masr.stages import decode as stage

    given = [*(overrides or []), *([f"decode.methods=[{','.join(method)}]"] if method else [])]
    given += [f"decode.prompts=[{','.join(prompt)}]"] if prompt else []
    given += [f"decode.bias_file={_quoted(bias_file)}"] if bias_file else []
    stage.run(load_config(conf, given), force, verify)


_stage("score", "Stage 5: error rates and reports.")


@app.command("config", help="Print the resolved config, or with --schema the JSON schema of all options.")
def show_config(
    conf: Annotated[Path | None, typer.Argument(help="Config file.")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema instead.")] = False,
) -> None:
    """Prints YAML or JSON; ConfigError without a config file and without ``--schema``."""
    import json

    from masr.config import Config
    from masr.config_files import ConfigError, config_yaml, load_config

    if schema:
        schema_of_files = Config.model_json_schema()
        schema_of_files["properties"]["extends"] = {"type": "string", "description": "Another file to start from."}
        schema_of_files.pop("required", None)  # an experiment without a name takes that of its file
        print(json.dumps(schema_of_files, indent=2))
    elif conf is None:
        raise ConfigError("name a config file, or ask for --schema")
    else:
        print(config_yaml(load_config(conf, overrides or [])), end="")


@app.command("transcribe", help="Recognise recordings: audio or video, any sample rate, any length.")
def transcribe(
    arguments: Annotated[list[str], typer.Argument(help="[MODEL] AUDIO ... (no MODEL here with --model)")],
    model: Annotated[
        str | None, typer.Option(help="Trained folder (exp/...), a shipped model, or a Whisper of the hub.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The Whisper that an adapted model needs; default: found.")] = None,
    languages: Annotated[
        str | None, typer.Option("--languages", "--language", help="Languages to expect, e.g. cs,nl.")
    ] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="AUDIO may be folders.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for transcripts; default: print them.")] = None,
    formats: Annotated[
        str, typer.Option("--format", help="txt, json, srt, vtt, tsv, ctm, textgrid; several with --output: srt,json.")
    ] = "txt",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out recordings whose transcripts are there.")] = False,
    channels: Annotated[str, typer.Option(help="mix, or separate: a transcript of each channel.")] = "mix",
    method: Annotated[str | None, typer.Option(help="Search method; default: the model's first one.")] = None,
    bias_file: BiasFile = None,
    translate: Annotated[
        bool, typer.Option("--translate", help="Print translations, if the model translates.")
    ] = False,
    language_only: Annotated[bool, typer.Option("--language-only", help="Name the language alone.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; default: cuda where there is one.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    stream: Annotated[
        bool, typer.Option("--stream", help="Print what is heard so far while it is heard; AUDIO may be - (stdin).")
    ] = False,
) -> None:
    """Prints a line for each recording, its text alone when there is one, or writes files.

    Exit code 1 when a recording could not be read; the others are done.
    """
    folder, *files = [model, *arguments] if model else arguments
    if not files:
        raise ValueError("name a model and at least one recording: masr transcribe exp/demo a.wav")
    if channels not in ("mix", "separate"):
        raise ValueError(f"--channels: expected mix or separate, found {channels}")
    if stream and (
        translate or output or language_only or recursive or resume or formats != "txt" or channels != "mix"
    ):
        raise ValueError("--stream prints what it hears as text or --json: leave out --translate and options of files")
    if as_json and formats not in ("txt", "json"):
        raise ValueError(f"--json and --format {formats}: one of the two")

    import masr
    from masr.recognize.files import Output, check, transcribe_files
    from masr.recognize.sources import list_sources

    given = {"methods": [method] if method else None, "bias_file": bias_file}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    where = Output(
        ("json",) if as_json else tuple(name.strip() for name in formats.split(",")),
        output,
        resume,
        channels == "separate",
    )
    sources = [] if stream else list_sources(files, recursive)
    check(where, sources)
    recognizer = masr.load(folder, device, precision, base, **options)
    if stream:
        _stream(recognizer.stream(_codes(languages)), files, as_json)
        return
    request = recognizer.request(_codes(languages), translate, language_only)
    if transcribe_files(recognizer, sources, request, where):
        sys.exit(1)


def _stream(stream: Any, files: list[str], as_json: bool) -> None:
    """Prints what a stream hears in one file, or on standard input."""
    from masr.recognize.stream import print_stream

    if len(files) > 1:
        raise ValueError(f"--stream: one recording at a time, found {len(files)}")
    print_stream(stream, files[0], as_json)


@app.command("align", help="When each word of a known text is spoken: audio and its text -> words with times.")
def align(
    model: Annotated[str, typer.Argument(help="Trained folder with a CTC head, or the name of a shipped model.")],
    audio: Annotated[Path, typer.Argument(help="Recording of any length.")],
    text: Annotated[Path, typer.Argument(help="What is said in it: a UTF-8 file; each line is a segment.")],
    form: Annotated[str, typer.Option("--format", help="json, ctm, textgrid, srt, vtt, tsv or txt.")] = "json",
    language: Annotated[str | None, typer.Option(help="Language of the text, if the model knows several.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
) -> None:
    """Writes or prints words with times; ValueError for a model that cannot align, or a text that it cannot write."""
    import masr
    from masr.files import write_whole
    from masr.recognize.align import align_file
    from masr.recognize.writers import find_writer

    writer = find_writer(form)
    transcript = align_file(masr.load(model), audio, text, language, show=output is not None)
    for warning in transcript.warnings:
        print(f"masr: {printable(warning)}", file=sys.stderr)
    rendered = writer.write(transcript, str(audio))
    if output is None:
        print(printable(rendered, LINES) if sys.stdout.isatty() else rendered, end="")
        return
    write_whole(output, rendered)
    _show(f"wrote {output}")


adapt = typer.Typer(help="Whisper with prompts or experts: add a language, merge experts, list.", no_args_is_help=True)
app.add_typer(adapt, name="adapt")
Model = Annotated[Path, typer.Argument(help="Adapted model, e.g. exp/lapt.")]


@adapt.command("prompts", help="Learn what the config adapts on some languages: stages 0 to 3.")
def adapt_prompts(
    conf: Conf,
    languages: Annotated[str, typer.Option(help="Languages to learn, e.g. ca,el.")],
    overrides: Overrides = None,
) -> None:
    from masr.stages.adapt import learn

    _show(learn(conf, _codes(languages) or [], overrides or []))


@adapt.command("expand", help="Add a language; all others stay bit for bit what they were.")
def adapt_expand(
    model: Model,
    language: Annotated[str, typer.Option(help="The new language, e.g. be.")],
    near: Annotated[str | None, typer.Option(help="Language of the model from which it starts, e.g. ru.")] = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew, if it was trained before.")] = False,
) -> None:
    from masr.stages.adapt import expand

    _show(expand(model, language, near, overrides or [], force))


@adapt.command("merge", help="Make one expert of those of all languages.")
def adapt_merge(
    model: Model,
    output: Annotated[Path, typer.Argument(help="Folder of the new model.")],
    kind: Annotated[
        str, typer.Option(help="cat (the exact mean), svd, ties, ties_svd, dare_ties, ... of peft.")
    ] = "svd",
    rank: Annotated[int | None, typer.Option(help="Rank of the new expert (svd kinds).")] = None,
    density: Annotated[float, typer.Option(help="Share of values that are kept (ties, dare).")] = 0.5,
) -> None:
    from masr.stages.adapt import merge

    merge(model, output, kind, rank, density)


@adapt.command(
    "join", help="Make one model of several, or of some of its languages: each has its own expert or prompt."
)
def adapt_join(
    models: Annotated[list[Path], typer.Argument(help="Adapted models of one Whisper, e.g. exp/baltic exp/iberian.")],
    output: Annotated[Path, typer.Option(help="Folder of the new model.")],
    languages: Annotated[str | None, typer.Option(help="Languages that it is to know; default: all.")] = None,
) -> None:
    from masr.stages.adapt import join

    join(models, output, _codes(languages))


@adapt.command("list", help="Every adapted model in a folder.")
def adapt_list(folder: Annotated[Path, typer.Argument(help="Folder of experiments.")] = Path("exp")) -> None:
    from masr.stages.adapt import describe_all

    _show(describe_all(folder))


@app.command("compare", help="Error rates of several decode files side by side; the first one is the baseline.")
def compare(files: Annotated[list[Path], typer.Argument(help="exp/<name>/decode/<method>/<split>.jsonl ...")]) -> None:
    from masr.score.report import compare_files

    _show(compare_files(files))


@app.command("table", help="Run what is missing of a table of experiments (egs/<dataset>/tables/x.yaml) and print it.")
def table(
    file: Annotated[Path, typer.Argument(help="Table file.")],
    rows: Annotated[list[str] | None, typer.Argument(help="Only these rows.")] = None,
    scale: Annotated[str | None, typer.Option(help="A scale that the file knows, e.g. mini.")] = None,
    nproc: Annotated[int, typer.Option(help="Training processes, one a GPU or CPU core.", min=1)] = 1,
    show: Annotated[bool, typer.Option("--show", help="Print what is there; run nothing.")] = False,
    results: Annotated[
        Path | None, typer.Option(help="Folder of published figures: they count as run, new ones are added.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Show the errors of this search instead of the table's.")] = None,
) -> None:
    """Prints Markdown; RuntimeError names the experiments that failed."""
    from masr.tables import print_table, run_table

    failed = [] if show else run_table(file, scale, nproc, rows or [], results)
    _show(print_table(file, scale, rows or [], results, method))
    if failed:
        raise RuntimeError(f"table: failed: {', '.join(failed)}; the same command tries them again")


@app.command("conflicts", help="Gradient conflicts of a trained model, by layer, with intervals.")
def conflicts(
    folder: Annotated[Path, typer.Argument(help="Trained folder, exp/<name>.")],
    overrides: Overrides = None,
    recordings: Annotated[int, typer.Option(help="Recordings of each language.", min=4)] = 64,
    split: Annotated[str | None, typer.Option(help="Split of the corpus; default: the training split.")] = None,
    checkpoint: Annotated[
        int | None, typer.Option(help="Averaged weights of the checkpoint of this update; default: the result.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which recordings are drawn.", min=0)] = 1,
) -> None:
    """Writes ``exp/<name>/conflicts``; ValueError where a checkpoint is missing, or recordings are too few."""
    from masr.stages import conflicts as stage

    _show(stage.run(folder, overrides or [], recordings, split, checkpoint, seed))


@app.command("export", help="Make a small folder of a trained model: float16 weights, tokenizer, model card.")
def export(
    folder: Annotated[Path, typer.Argument(help="Trained folder, exp/<name>.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    method: Annotated[str | None, typer.Option(help="How it is to search; default: the experiment's first.")] = None,
    languages: Annotated[
        str | None, typer.Option(help="Keep only the adapters of these languages, e.g. cs,nl.")
    ] = None,
    hugging_face: Annotated[
        bool, typer.Option("--hugging-face", help="Of a Whisper: a plain folder of transformers, experts merged.")
    ] = False,
    ctranslate2: Annotated[
        bool, typer.Option("--ctranslate2", help="Of a Whisper: a folder for CTranslate2 (faster-whisper), int8.")
    ] = False,
) -> None:
    """ValueError for languages that the model has not, or a format that only a Whisper has."""
    from masr.models.export import export_model, export_whisper

    if hugging_face or ctranslate2:
        _show(f"wrote {export_whisper(folder, output, _codes(languages), ctranslate2)}")
        return
    _show(f"wrote {export_model(folder, output, method, _codes(languages))}")


def _codes(languages: str | None) -> list[str] | None:
    """The languages of ``cs, nl``; no language at all is a prompt, too, which the model refuses."""
    return None if languages is None else [code.strip() for code in languages.split(",") if code.strip()]


def _show(text: object) -> None:
    """Prints lines in which nothing acts on the terminal."""
    print(printable(str(text), LINES))


def _quoted(text: str) -> str:
    """Text as YAML has it, so that a file called 5 or [a] is no number or list."""
    return "'" + text.replace("'", "''") + "'"


def main() -> None:
    """Entry point; what a user can put right is one clear message, not a traceback (`masr.errors`)."""
    end_with_recipe()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter shows its number
    app()


if __name__ == "__main__":  # a process of `masr train --nproc N`, or torchrun -m masr.cli
    run_as_rank(main)
