"""`tidemill demo`: the whole platform in one command."""

import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import local_server, server_commands
from tidemill.cli.local_server import Addresses, LocalServer
from tidemill.cli.output import bill_sentence, credits_of, note, short
from tidemill.cli.progress import WaitDisplay
from tidemill.client import Client
from tidemill.connection import resolve
from tidemill.errors import TidemillError, UnreachableError
from tidemill.printing import PrintedAnswer

QUESTION = "What does Tidemill do?"


def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Serve on until Ctrl-C.")] = False,
    model: Annotated[str, typer.Option("--model", "-m", help="The model to wake.")] = "tide-nano",
    question: Annotated[str, typer.Option(help="What to ask it.")] = QUESTION,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the server keeps its things.  [default: a folder that goes with it]")
    ] = None,
    models: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="A folder of model packages; may be given several times."),
    ] = None,
) -> None:
    """Start a server, wake a model, stream one answer, show its cost.

    With --stay the server runs on, on the usual ports where they are free, until Ctrl-C drains and stops it.
    """
    server_commands.require("serve")
    # Else the server would die with us, undrained. Not the handler of SIGINT: that may be ignored, as behind a `&`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = [part for folder in models or () for part in ("--models", str(folder))]
    with ExitStack() as stack:
        folder = data_dir or Path(stack.enter_context(local_server.scratch_folder()))
        ports = local_server.free_or_any(local_server.DEFAULT_PORTS) if stay else (0, 0, 0)
        # Only a server that stays may change what the CLI in other terminals talks to.
        config_path = None if stay else folder / "config.toml"
        note("Starting the platform ...")
        server, addresses = local_server.started(stack, folder, ports, config_path=config_path, arguments=arguments)
        note(f"gRPC on {addresses.grpc}, HTTP on {addresses.http}, admin on {addresses.admin}.")
        try:
            _ask_once(addresses, model, question)
        except UnreachableError:
            if not server.is_running:
                server.raise_dead()
            raise
        if stay:
            _stay(server, addresses, model)
        note("Stopping the platform ...")


def _ask_once(addresses: Addresses, model: str, question: str) -> None:
    key, ca_file = addresses.read_key(), str(addresses.ca_file or "")
    with (
        Client(key, target=addresses.target, ca_file=ca_file, model=model) as client,
        client.session() as session,
    ):
        with WaitDisplay(short(session.model)) as waiting:
            found = client.wait_until_model_running(on_progress=waiting.show)
        note(f"{short(session.model)} is awake; {session.name} is open.")
        typer.echo(f"> {question}")
        if found.chat_templates:
            stream = client.complete_chat([{"role": "user", "content": question}], max_tokens=128, temperature=0)
        else:
            stream = client.complete_prompt(question, max_tokens=128, temperature=0)
        printed = client.print_prompt(stream, sys.stdout)
    note(_speed(printed))
    note(bill_sentence(session.bill))
    note(f"The price is {credits_of(session.bill.price_microcredits_per_second)} a second; 1 credit is 1 US cent.")


def _speed(printed: PrintedAnswer) -> str:
    """How fast the answer came, as far as it was long enough to say so."""
    usage = printed.usage
    if usage is None or usage.time_to_first_token is None:
        return "The answer has no text."
    first = usage.time_to_first_token.total_seconds()
    text = f"{usage.completion_tokens} tokens, the first after {first * 1000:.0f} ms"
    return f"{text}, then {printed.tokens_per_second:.0f} tokens/s." if printed.tokens_per_second else f"{text}."


def _stay(server: LocalServer, addresses: Addresses, model: str) -> None:
    note("")
    note("The platform serves until Ctrl-C. In a second terminal:")
    if not _is_found_without_telling(addresses):
        note(f"  export TIDEMILL_TARGET={addresses.target}")
        if addresses.ca_file is not None:
            note(f"  export TIDEMILL_CA_FILE={shlex.quote(str(addresses.ca_file))}")
        note(f"  export TIDEMILL_API_KEY=$(cat {shlex.quote(str(addresses.api_key_file.absolute()))})")
    program = local_server.program()
    note(f"  {program} chat --model {model}")
    note(f"  {program} complete 'What does a session cost?' --model {model}")
    if addresses.ca_file is None:
        note(f"  curl http://{addresses.admin}/metrics")
    else:
        note(f"  curl --cacert {shlex.quote(str(addresses.ca_file))} https://{addresses.admin}/metrics")
    scheme = "http" if addresses.ca_file is None else "https"
    note(f"Programs that speak the OpenAI API take the base URL {scheme}://{addresses.http}/v1, and a key of")
    note(f"  {program} key create --auto-session")
    try:
        server.wait()
    except KeyboardInterrupt:
        note("")


def _is_found_without_telling(addresses: Addresses) -> bool:
    """Whether the CLI asks this server by itself; one that was there before keeps the config file."""
    try:
        asked = resolve(addresses.read_key(), target=addresses.target, ca_file=str(addresses.ca_file or ""))
        return resolve() == asked
    except TidemillError:
        return False
