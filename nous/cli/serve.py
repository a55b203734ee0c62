"""``nous serve``: reads the configuration, builds the daemon, serves it."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from nous import __version__
from nous.cli.answer import CORRELATION_VARIABLE
from nous.cli.options import OptionParser, add_daemon_flags, add_state_flags, load_settings, parse
from nous.config.keys import flatten
from nous.config.layers import allows_bootstrap
from nous.config.load import Loaded
from nous.config.provider import KEY_VARIABLES, require_provider
from nous.config.settings import ProviderName, Settings
from nous.config.settings import ProviderSection as ProviderSection
from nous.errors import NousError, bound_text
from nous.extensions.places import may_be_any
from nous.ports.extensions import Extensions
from nous.ports.model import Catalogue, ModelChoice, Provider
from nous.ports.system import Ids
from nous.ports.tool import Tool
from nous.protocol.events import StartWarning
from nous.providers.pool import ProviderPool
from nous.providers.reach import reach
from nous.runtime.daemon import Daemon
from nous.runtime.seams import Seams
from nous.schemas.checker import SchemaChecker
from nous.store.locks import LockProfile
from nous.system.clock import SystemClock
from nous.system.ids import RandomIds, new_epoch
from nous.system.process import harden, harden_before_first_child
from nous.system.regular_file import read_regular_file
from nous.system.state_dir import Actor, EpochLock, StateDir, dead_epochs, is_dead, open_state_dir, state_paths
from nous.telemetry.foreign import capture_foreign_records
from nous.telemetry.log import configure, get_log
from nous.transport.descriptors import DescriptorEndpoint
from nous.transport.ending import ProcessEnding
from nous.transport.server import Server, end_limit_ms
from nous.transport.wire import claim_stdio

if TYPE_CHECKING:
    from nous.runtime.faults import FaultySeams

MAX_SYSTEM_FILE_BYTES: Final = 1024 * 1024

log = get_log("cli")


def run(arguments: Sequence[str]) -> int:
    """Serve until the clients are gone, or a signal."""
    options = parse(make_parser(), arguments)
    loaded = load_settings(options)
    settings = loaded.settings
    world = make_world(require_provider(settings), settings, state_paths(loaded.state_root).traces)
    workdir = find_workdir(options.workdir)
    state = open_state_dir(loaded.state_root, permission(options, settings))
    epoch = new_epoch()
    configure(settings.daemon.log_level, correlation_id=os.environ.get(CORRELATION_VARIABLE), epoch=epoch)
    capture_foreign_records()
    for warning in state.warnings:
        log.warning("state_dir_open", detail=warning)
    report_ignored_project(loaded)
    warnings = start_warnings(loaded)
    lock = EpochLock.acquire(state.daemons, epoch)
    try:
        daemon = make_daemon(settings, state, workdir, world, epoch, warnings)
        wire = claim_stdio()
        # Nobody may read our environment, and orphans of our children come back to us.
        harden_before_first_child(epoch)
        endpoint = DescriptorEndpoint(wire.read_fd, wire.write_fd)
        serve_stdio = options.socket is None or options.stdio
        server = Server(
            daemon,
            wire=endpoint,
            serve_stdio=serve_stdio,
            socket_path=options.socket,
            load_ahead=load_ahead,
            housekeeping=lambda: keep_house(state, daemon),
            ending=ProcessEnding(
                grace_s=end_limit_ms(settings.daemon.abort_grace_ms) / 1000,
                is_interactive=os.isatty(wire.read_fd),
            ),
        )
        # What was imported stays: no collection need ever look at it.
        gc.freeze()
        gc.enable()
        anyio.run(server.serve)
    finally:
        lock.release()
    return 0


def permission(options: argparse.Namespace, settings: Settings) -> Actor | None:
    """Return who allowed making the state directory, if anybody did.

    Raises:
        NousError: ``unsafe_operation`` under the profile production, where nobody may.
    """
    actor: Actor | None = None
    if options.bootstrap:
        actor = "--bootstrap"
    elif allows_bootstrap(os.environ):
        actor = "NOUS_ALLOW_BOOTSTRAP"
    if actor is not None and settings.daemon.profile == "production":
        raise NousError(
            "unsafe_operation",
            f"{actor} under the profile production",
            hint="Make the state directory once, by hand: nous init.",
        )
    return actor


def report_ignored_project(loaded: Loaded) -> None:
    """Say that the project has settings which do not count, and what would make them count."""
    project = loaded.ignored_project
    if project is not None:
        log.warning(
            "project_config_ignored",
            file=project.source.name,
            trust=project.verdict,
            reason=project.reason,
            fix="nous trust DIR",
        )


def start_warnings(loaded: Loaded) -> tuple[StartWarning, ...]:
    """Return what ``ready`` says of the configuration.

    Raises:
        NousError: ``unsafe_operation`` if the project's file forbade something that nobody knows any more.
    """
    project = loaded.ignored_project
    if project is None:
        return ()
    project.check_restrictions()
    text = f"{project.source.name} does not count: {project.reason}."
    if project.last_trusted is not None:
        text += " What it forbade when it was trusted stays forbidden."
    hint = f"Read it, then type: nous trust {Path(project.source.name).parent.parent}"
    return (StartWarning(code="project_config_ignored", message=bound_text(text), hint=bound_text(hint)),)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``nous serve``."""
    parser = OptionParser(
        prog="nous serve", description="Run the daemon. Without --socket it speaks over stdin and stdout."
    )
    add_state_flags(parser)
    add_daemon_flags(parser)
    parser.add_argument("--socket", metavar="PATH", type=Path, help="serve PATH and PATH.events instead of stdio")
    parser.add_argument("--stdio", action="store_true", help="with --socket: serve stdio too")
    parser.add_argument("--json", action="store_true", help="report a refusal to start as one object")
    return parser


class World(NamedTuple):
    """What a daemon's runs meet: the real thing, or a recording of it."""

    provider: Provider
    catalogue: Catalogue | None
    tools: Callable[[], Sequence[Tool]]
    ids: Ids
    seams: Seams | None


def make_world(name: ProviderName, settings: Settings, traces: Path) -> World:
    """Return the providers that a daemon of these settings has."""
    given = settings.provider
    if name == "replay":
        return make_recorded_world(given, traces)
    # The catalogue says first what is wrong with the daemon's own provider, in the words of a command line.
    default = ModelChoice(name, given.model or name, given.thinking)
    models_file = None if given.models_file is None else Path(given.models_file)
    pool = ProviderPool(default, lambda chosen: reach(settings, chosen, os.environ), models_file)
    provider = pool.build(default)
    return World(provider, pool, partial(make_tools, settings), RandomIds(), None)


def make_tools(settings: Settings) -> Sequence[Tool]:
    """Return the built-in tools."""
    from nous.tools.registry import builtin_tools

    return builtin_tools(
        bash_timeout_ms=settings.tools.bash_timeout_ms,
        bash_memory_limit_mb=settings.tools.memory_limit_mb,
        closed_names=secret_variables(settings),
    )


def secret_variables(settings: Settings) -> tuple[str, ...]:
    """Return the environment variables that hold keys of nous: no command and no extension gets them.

    Those that the configuration names, and those that the vendors document, whichever provider is in use.
    """
    named = (str(value) for path, value in flatten(settings).items() if path.endswith("_env") and value)
    return tuple(sorted({*named, *KEY_VARIABLES.values()}))


def make_recorded_world(given: ProviderSection, traces: Path) -> World:
    """Build the seams of a replay.  No provider client and no tool is made."""
    from nous.replay.recording import read_header
    from nous.replay.serving import ReplayProvider, ReplaySeams, ReplayTool, find_recordings

    if given.replay_from is None:
        raise NousError("invalid_usage", "the provider replay needs --replay-from", hint="Name a *.trace.ndjson file.")
    paths = find_recordings(Path(given.replay_from))
    seams = ReplaySeams(
        paths,
        drive=given.replay_drive,
        speed=given.replay_speed,
        clock=SystemClock(),
        ids=RandomIds(),
        traces=traces,
    )
    headers = [read_header(path) for path in paths]
    names = dict.fromkeys(name for header in headers for name in header.spec.known_tools)
    tools = [ReplayTool(name, seams) for name in names]
    return World(ReplayProvider(seams, headers[0]), None, lambda: tools, seams, seams)


def lock_profile(settings: Settings) -> LockProfile:
    """Return the timing of session locks that the settings ask for."""
    timeout_ms, retry_ms = settings.session_lock.timing_ms()
    return LockProfile(timeout_ms=timeout_ms, retry_ms=retry_ms, stale_after_ms=settings.session_lock.stale_after_ms)


def find_workdir(given: Path | None) -> Path:
    """Return the directory tools work in, links resolved."""
    path = (given or Path.cwd()).resolve()
    if not path.is_dir():
        raise NousError("invalid_usage", f"--workdir: {given} is not a directory")
    return path


def make_daemon(
    settings: Settings,
    state: StateDir,
    workdir: Path,
    world: World,
    epoch: str,
    warnings: tuple[StartWarning, ...] = (),
) -> Daemon:
    """Return the daemon, not yet serving."""
    faulty = make_faulty_seams(settings)
    schemas = SchemaChecker()
    daemon = Daemon(
        settings=settings,
        state_root=state.root,
        workdir=workdir,
        provider=world.provider,
        catalogue=world.catalogue,
        tools=world.tools,
        clock=SystemClock(),
        ids=world.ids,
        seams=faulty or world.seams,
        lock_profile=lock_profile(settings),
        epoch=epoch,
        version=__version__,
        system_override=read_system_override(settings),
        is_dead=partial(is_dead, state.daemons),
        exporter=partial(export_run, state, settings),
        correlation_id=os.environ.get(CORRELATION_VARIABLE),
        extensions=None if world.seams is not None else find_extensions(settings, state, workdir, schemas),
        schemas=schemas,
        warnings=warnings,
    )
    if faulty is not None:
        faulty.abort = daemon.lose_client
    return daemon


def make_faulty_seams(settings: Settings) -> FaultySeams | None:
    """Return the seams of a daemon that is to meet faults, if it is.

    Raises:
        NousError: ``invalid_config`` for a plan that is none.
    """
    if settings.daemon.faults is None:
        return None
    from nous.config.faults import read_fault_plan
    from nous.runtime.faults import FaultySeams

    plan = read_fault_plan(Path(settings.daemon.faults))
    log.warning("faults_injected", seed=plan.seed)
    return FaultySeams(SystemClock(), settings.tools.policy, plan)


def find_extensions(settings: Settings, state: StateDir, workdir: Path, schemas: SchemaChecker) -> Extensions | None:
    """Return the extensions of this daemon, or ``None``: then nothing of them is even imported."""
    environ = os.environ
    if not settings.extensions.enabled or not may_be_any(workdir, environ, state.root):
        return None
    from nous.extensions.host import ExtensionHost, Surroundings

    return ExtensionHost(
        Surroundings(
            state_root=state.root,
            workdir=workdir,
            environ=environ,
            closed_names=secret_variables(settings),
            settings=settings.extensions,
            clock=SystemClock(),
        ),
        schemas,
    )


def export_run(state: StateDir, settings: Settings, run_id: str, form: str) -> Path:
    """Export a run, redacted: what the daemon itself holds as secrets must not be in it either."""
    from nous.cli.trace import held_secrets
    from nous.replay.export_process import export_apart

    secrets = held_secrets(settings, os.environ)
    return export_apart(state.root, run_id, "events" if form == "events" else "fixture", secrets)


def load_ahead() -> None:
    """Load what the first run will use.  Runs in a thread beside the serving, whoever needs it first."""
    harden()
    import nous.runtime.recorded
    import nous.runtime.results
    import nous.runtime.run
    import nous.tools.registry  # noqa: F401


def keep_house(state: StateDir, daemon: Daemon) -> None:
    """Clean up after daemons that were killed: processes of their tools, traces they left open, temporary files.

    Runs in a thread beside the serving and stops early when the daemon is to end: nobody waits for it.
    """
    from nous.store.trace_repair import interrupt_dead
    from nous.system.leftovers import remove_leftovers
    from nous.system.orphans import end_orphans

    should_stop = daemon.stop.requested.is_set
    if count := end_orphans(dead_epochs(state.daemons), should_stop):
        log.warning("orphans_ended", count=count)
    daemon.sessions.sweep()
    remove_leftovers(state.root, state.sessions)
    found = interrupt_dead(state.traces, partial(is_dead, state.daemons), should_stop=should_stop)
    for trace in found.closed:
        log.info("trace_interrupted", run_id=trace.run_id)
    for path in found.set_aside:
        log.info("headerless_trace_set_aside", kept_as=path.name)
    for error in found.failed:
        log.warning("trace_not_closed", cause=error.cause)


def read_system_override(settings: Settings) -> str | None:
    """Return the system prompt that the settings give in the place of nous's own, if they do."""
    if settings.prompt.system_file is None:
        return settings.prompt.system
    path = Path(settings.prompt.system_file)
    try:
        return read_regular_file(path, MAX_SYSTEM_FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise NousError("invalid_config", f"prompt.system_file: {path}: not UTF-8") from None
    except OSError as error:
        raise NousError("invalid_config", f"prompt.system_file: {path}: {error.strerror}") from None
