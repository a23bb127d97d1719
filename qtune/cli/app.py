"""The command line: the verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from qtune import __version__
from qtune.cli.compare_command import compare, cost
from qtune.cli.data_commands import data
from qtune.cli.doctor_command import doctor
from qtune.cli.eval_command import evaluate
from qtune.cli.export_command import export
from qtune.cli.generate_command import chat, generate
from qtune.cli.import_command import import_
from qtune.cli.init_command import init
from qtune.cli.job_page import tell_job_page
from qtune.cli.merge_command import merge
from qtune.cli.methods_command import methods
from qtune.cli.output import drop_rest, news, print_error, print_json_error
from qtune.cli.paragraphs import paragraphs
from qtune.cli.plan_command import plan
from qtune.cli.prune_command import prune
from qtune.cli.push_command import push
from qtune.cli.quantize_command import quantize
from qtune.cli.recipe_commands import schema, show, validate
from qtune.cli.report_command import report
from qtune.cli.runs_command import runs
from qtune.cli.stopping import Signalled, Stopping
from qtune.cli.sweep_command import sweep
from qtune.cli.train_command import train
from qtune.cli.watch_command import watch
from qtune.errors import ExitCode, Fault, QtuneError, ResourceError, UsageError
from qtune.ranks import seat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(
    help="QLoRA fine-tuning from a short YAML recipe: plan, train, evaluate, merge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The verbs as `qtune --help` groups them, in the order in which a person meets them.
_VERBS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Begin": {
        "init": init,
        "import": import_,
        "doctor": doctor,
        "validate": validate,
        "show": show,
        "schema": schema,
        "methods": methods,
    },
    "Before training": {"data": data, "plan": plan, "quantize": quantize, "prune": prune},
    "Train": {
        "train": train,
        "sweep": sweep,
        "watch": watch,
        "runs": runs,
        "report": report,
        "compare": compare,
    },
    "Measure and try": {"eval": evaluate, "generate": generate, "chat": chat},
    "Ship": {"merge": merge, "export": export, "push": push},
}
for _group, _verbs in _VERBS.items():
    for _name, _verb in _verbs.items():
        if isinstance(_verb, typer.Typer):
            app.add_typer(_verb, name=_name, rich_help_panel=_group)
        else:
            app.command(_name, rich_help_panel=_group)(_verb)
app.command(hidden=True)(cost)
for _commands in (app, data, runs):
    for _command in _commands.registered_commands:
        _command.help = paragraphs(_command.callback)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"qtune {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """QLoRA fine-tuning from a short YAML recipe: plan, train, evaluate, merge."""


_SHOWN = 40  # of a path that is too long
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def main() -> NoReturn:
    """Run the command line and exit with the code that the README lists."""
    # libgomp's threads spin at each barrier for so long that a second busy process on the same
    # cores makes both ten times slower; a short spin costs nothing on a quiet machine. It is read
    # once, when torch loads libgomp.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if seat().rank:  # the first process of a run speaks for all
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
    sys.exit(run_app())


def run_app(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors become lines on stderr, not tracebacks."""
    stopping = Stopping()
    stopping.listen()
    as_json = "--json" in (sys.argv if arguments is None else arguments)
    try:
        return _run_and_flush(arguments)
    except Signalled as signalled:
        return _stopped(signalled.code, as_json=as_json)
    except BrokenPipeError:
        drop_rest(sys.stdout)  # `qtune show --json | head`: the reader has seen enough
        return int(ExitCode.DONE)
    except Exception as error:
        if stopping.code is not None:  # a library made another exception of the signal's
            return _stopped(stopping.code, as_json=as_json)
        known = _known(error)
        if known is None:
            return _bug(error, as_json=as_json)
        return _refused(known, arguments, as_json=as_json)


def _answer(code: ExitCode, faults: Sequence[Fault], *, as_json: bool) -> int:
    """The code of a failure; under --json the failure is the one object on stdout."""
    if as_json:
        print_json_error(code, faults)
    return int(code)


def _refused(error: QtuneError, arguments: list[str] | None, *, as_json: bool) -> int:
    if error.said_elsewhere:
        return int(error.code)
    print_error(error)
    words = sys.argv[1:] if arguments is None else arguments
    tell_job_page(error, verb=words[0] if words else "")
    return _answer(error.code, error.faults, as_json=as_json)


def _run_and_flush(arguments: list[str] | None) -> int:
    """The code that the command chose, 0 when it chose none."""
    try:
        chosen = app(args=arguments, prog_name="qtune", standalone_mode=False)
        return chosen if isinstance(chosen, int) else int(ExitCode.DONE)
    finally:
        sys.stdout.flush()  # here, where a reader who left or a full disk has its exit code


def _stopped(code: ExitCode, *, as_json: bool) -> int:
    if not seat().rank:
        news().print("stopped")
    return _answer(code, [Fault(message="stopped")], as_json=as_json)


def _bug(error: Exception, *, as_json: bool) -> int:
    traceback.print_exception(error)
    news().print("this is a bug in qtune; please report the lines above", style="bold red")
    fault = Fault(message=f"{type(error).__name__}: {error}")
    return _answer(ExitCode.BUG, [fault], as_json=as_json)


def _known(error: Exception) -> QtuneError | None:
    """The error as one that people see; None for a bug."""
    if isinstance(error, QtuneError):
        return error
    return _command_line_error(error) or _path_error(error) or _resource_error(error)


def _command_line_error(error: Exception) -> UsageError | None:
    """A command line that Typer refuses, as a fault like any other; None for anything else."""
    told = getattr(error, "format_message", None)
    if told is None:
        return None
    context = getattr(error, "ctx", None)
    # no command at all: Typer has printed the help
    message = str(told()).strip().rstrip(".") or "no command is given"
    return UsageError(message, hint=f"see {context.command_path} --help" if context else "")


def _path_error(error: Exception) -> QtuneError | None:
    """A path that the system takes from nobody, or not from this person; None otherwise."""
    if not isinstance(error, OSError):
        return None
    place = str(error.filename or "")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError("the name is too long", place=f"{place[:_SHOWN]}...", hint="shorten it")
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "see who may read and write it"
        return ResourceError(os.strerror(error.errno).lower(), place=place, hint=hint)
    return None


def _resource_error(error: Exception) -> ResourceError | None:
    """What a machine that is too small says, in our words; None for anything else."""
    if isinstance(error, OSError) and error.errno in _DISK:
        said = f"cannot write: {os.strerror(error.errno).lower()}"
        return ResourceError(said, place=str(error.filename or ""), hint="see to the disk")
    from qtune.oom import HINT, is_out_of_memory

    if is_out_of_memory(error):
        return ResourceError(f"out of memory: {str(error).split('. ')[0]}", hint=HINT)
    return None
