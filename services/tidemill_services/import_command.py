"""`tidemill model import`: makes a model package of what others publish, where the server finds it."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill_models.errors import ConversionNeededError, ModelImportError, ModelPackageError, VariantNeededError
from tidemill_models.importing.convert import PRECISIONS, convert, require_builder
from tidemill_models.importing.import_report import report
from tidemill_models.importing.package_maker import ImportedModel, Wishes, import_model
from tidemill_models.importing.source import FolderSource, Source
from tidemill_models.manifest_tables import NAME
from tidemill_services.download_bar import DownloadBar
from tidemill_services.settings import Settings, SettingsError

_TRIAL_SECONDS = 600


@dataclass
class _Trial:
    """Runs a package in a process of its own, since the control plane runs no tensors."""

    found: dict[str, float] = field(default_factory=dict)

    def run(self, package: Path) -> None:
        """Raises ModelImportError."""
        line = [sys.executable, "-m", "tidemill_serving.trial", str(package)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False)
            told = json.loads(done.stdout)
        except (ValueError, subprocess.TimeoutExpired):
            raise ModelImportError(
                "The model does not run here: its trial ended without an answer, or took more than ten minutes. "
                "Is there memory enough? --no-trial leaves the trial out."
            ) from None
        if "refusal" in told:
            raise ModelImportError(f"The model does not run here: {told['refusal']}.")
        self.found = told


def import_command(
    source: Annotated[str, typer.Argument(metavar="PATH|hf:OWNER/NAME[@REVISION]", help="A folder, or a hub's model.")],
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: the source's]")] = None,
    variant: Annotated[str | None, typer.Option(help="Which graph, where there are several: q4, fp16, ...")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Tokens, prompt and answer together.  [default: the model's, at most 8192]")
    ] = None,
    wants_conversion: Annotated[
        bool, typer.Option("--convert", help="Make the graph of the checkpoint; needs the extra convert.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help=f"Of the graph that --convert makes: {', '.join(PRECISIONS)}.")
    ] = "int8",
    may_replace: Annotated[bool, typer.Option("--replace", help="Replace a package of that name.")] = False,
    wants_trial: Annotated[bool, typer.Option("--trial/--no-trial", help="Run the model before it is taken.")] = True,
    data_dir: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a model package of an ONNX export or a checkpoint.

    It is put into the data directory, where `tidemill serve` finds it when it starts next.
    """
    try:
        settings = Settings.read(data_dir=data_dir)
        if precision not in PRECISIONS:
            raise typer.BadParameter(f"must be one of {', '.join(PRECISIONS)}", param_hint="--precision")
        wishes = Wishes(_checked_name(name or _usual_name(source)), variant, context_length, may_replace)
        trial = _Trial()
        with _opened(source, precision if wants_conversion else None, settings.data_dir) as (opened, origin):
            imported = _import(opened, settings.data_dir / "models", wishes, origin, trial if wants_trial else None)
    except (ModelImportError, ModelPackageError) as error:
        _fail(str(error), "MODEL_IMPORT", as_json=as_json, status=1)
    except SettingsError as error:
        _fail(str(error), "USAGE", as_json=as_json, status=2)
    found = report(imported, trial.found)
    if as_json:
        typer.echo(json.dumps(found.facts, ensure_ascii=False))
    else:
        for sentence in found.sentences:
            typer.echo(sentence)


def _import(source: Source, models: Path, wishes: Wishes, origin: str, trial: _Trial | None) -> ImportedModel:
    """Import; on a terminal, ask which graph where there are several."""
    try_out = trial.run if trial else _skip
    models.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the data directory, as a server makes it
    try:
        return import_model(source, models, wishes, origin=origin, try_out=try_out)
    except VariantNeededError as error:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise
        chosen = typer.prompt(f"{error}\nWhich", type=str)
        return import_model(source, models, replace(wishes, variant=chosen), origin=origin, try_out=try_out)


def _skip(package: Path) -> None:
    """Try nothing."""


@contextmanager
def _opened(source: str, precision: str | None, data_dir: Path) -> Iterator[tuple[Source, str]]:
    """The source, converted first where a precision is given, and what the description says of it."""
    if source.startswith("hf:"):
        from tidemill_models.importing.hub import HubSource  # noqa: PLC0415 - half a second

        with DownloadBar() as bar:
            hub = HubSource(source, data_dir / "downloads", bar.show)
            with _converted(hub, f"{source} at {hub.commit[:12]}", precision, data_dir) as opened:
                yield opened
            hub.forget()
        return
    with _converted(FolderSource(Path(source)), Path(source).resolve().name, precision, data_dir) as opened:
        yield opened


@contextmanager
def _converted(opened: Source, origin: str, precision: str | None, data_dir: Path) -> Iterator[tuple[Source, str]]:
    if precision is None:
        try:
            yield opened, origin
        except ConversionNeededError as error:
            require_builder()
            raise ModelImportError(str(error)) from None
        return
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="converting-", dir=data_dir) as scratch:
        yield convert(opened, precision, Path(scratch)), f"{origin}, converted"


def _usual_name(source: str) -> str:
    """The repository's or the folder's name, in the letters that a model's name may have."""
    last = source.removeprefix("hf:").partition("@")[0] if source.startswith("hf:") else str(Path(source).resolve())
    return re.sub(r"[^a-z0-9._-]+", "-", Path(last).name.lower()).strip("-._")[:64]


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ModelImportError(f"A model cannot be called {name[:80]!r}: give a --name of a-z, 0-9 and .-_ .")
    return name


def _fail(sentence: str, reason: str, *, as_json: bool, status: int) -> Any:
    told = {"error": {"reason": reason, "message": sentence, "field": ""}}
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else f"Error: {sentence}", err=True)
    raise typer.Exit(status)
