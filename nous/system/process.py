"""Starting children, and ending them together with everything they started.

A child gets its own session and process group, closed descriptors, a parent-death signal (Linux), and pipes or
/dev/null for its standard streams.  :meth:`Child.end` is the one way to end it: TERM to its whole tree, KILL after
a grace, the root reaped last; then :meth:`Child.close`.  On Linux nobody escapes, also not by ``setsid`` (see
:mod:`nous.system.proctree`), provided :func:`become_subreaper` was called before the first child
(:func:`harden_before_first_child` sees to that).

What macOS lacks: no parent-death signal, no /proc, so that a child which leaves its process group is not found, and
a tree's memory is not known.

Source of the rules: docs/tools.md, "Commands".
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal

import anyio

from nous.system.pipes import ReadPipe, WritePipe, open_output_pipe
from nous.system.prctl import death_hook, set_child_subreaper, set_non_dumpable
from nous.system.proctree import FAMILY, MARK_VARIABLE, ProcessTree, kill_every_tree
from nous.system.threads import WorkThreads, run_alone

TERM_GRACE_MS: Final = 2000
"""How long a child may clean up between TERM and KILL."""
KILL_LIMIT_MS: Final = 5000
"""KILL needs no consent, but a process in the kernel (a dead disk) may not die: it is given up after this."""
POLITE_PROCESSES: Final = 256
"""A tree with more processes gets no time to clean up."""
_KILL_EVERY_S: Final = 0.5
_FIRST_LOOK_S: Final = 0.005
_LAST_LOOK_S: Final = 0.1

_tree_threads: Final = WorkThreads()
"""Looks at /proc; separate, because ending a child must not wait for file work that hangs."""


def become_subreaper() -> bool:
    """Adopt the orphans of this process's descendants, so that none escapes its tree.  Linux; else False.

    From then on every child of this process must be started by :func:`spawn`.
    """
    FAMILY.adopts_orphans = set_child_subreaper(on=True)
    return FAMILY.adopts_orphans


def harden_before_first_child(epoch: str = "") -> None:
    """Have the first :func:`spawn` call :func:`harden`, if nobody has by then.

    Children are marked with ``epoch``, so that the next daemon can end what they leave behind if this one is killed.

    For a daemon: what a start without any child does not need costs it nothing.
    """
    _hardening.is_due = True
    FAMILY.epoch = epoch


def harden() -> None:
    """Call :func:`become_subreaper` and :func:`set_non_dumpable`, if that was asked for and is still to be done."""
    if _hardening.is_due:
        set_non_dumpable()
        become_subreaper()
        _hardening.is_due = False


class _Hardening:
    """Whether this process asked to be hardened and is not yet."""

    is_due = False


_hardening: Final = _Hardening()


def kill_every_child() -> None:
    """Send SIGKILL to every child and all it started; does not wait for their end, and returns soon."""
    kill_every_tree(_KILL_EVERY_S)


class Child:
    """A running child.  ``stdout`` is always a pipe; ``stdin`` and ``stderr`` are if that was asked for."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str, pipes: _Pipes) -> None:
        self.pid = popen.pid
        self.tree = ProcessTree(popen.pid, mark)
        self.stdin = pipes.stdin
        self.stdout = pipes.stdout
        self.stderr = pipes.stderr
        self._popen = popen
        self._pidfd = _open_pidfd(popen.pid)
        self._returncode: int | None = None
        self._is_reaped = False

    async def wait(self) -> int:
        """Return the exit status, or minus the signal's number, once the child has exited.  One task at a time.

        Says nothing of what the child started; call :meth:`end` in any case.
        """
        while (returncode := self.poll()) is None:
            if self._pidfd is None:
                await run_alone(self._block_until_exit)
            else:
                await anyio.wait_readable(self._pidfd)
        return returncode

    def poll(self) -> int | None:
        """Return what :meth:`wait` would, or ``None`` while the child runs."""
        if self._returncode is None:
            self._returncode = _peek_exit(self._popen)
        return self._returncode

    async def end(self, grace_ms: int = TERM_GRACE_MS) -> int:
        """End the child and everything it started, and reap it.  Not cancellable, bounded, repeatable.

        Returns what :meth:`wait` does, at once if all have exited by themselves.  Otherwise TERM to all, after
        ``grace_ms`` KILL, until none is left.  A tree of more than ``POLITE_PROCESSES`` is killed at once.  The pipes
        stay open: what was written can still be read.
        """
        with anyio.CancelScope(shield=True):
            is_alone = self.poll() is not None and not self.tree.may_have_outlived_root()
            if not self._is_reaped and not is_alone:
                # A fork bomb starves this process for as long as it is waited for.
                grace_ms = grace_ms if self.tree.size() <= POLITE_PROCESSES else 0
                if not await self._signal_until_gone(signal.SIGTERM, grace_ms):
                    await self._signal_until_gone(signal.SIGKILL, KILL_LIMIT_MS)
        self._reap()
        return -signal.SIGKILL if self._returncode is None else self._returncode

    def close(self) -> None:
        """Close the pipes."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()

    async def _signal_until_gone(self, signum: signal.Signals, limit_ms: int) -> bool:
        """Return whether all are gone.  KILL is repeated: a tree that forks quickly is not caught by one look."""
        deadline = anyio.current_time() + limit_ms / 1000
        pause_s = _FIRST_LOOK_S
        is_told = False
        while limit_ms > 0 and await self._is_any_left():
            if anyio.current_time() >= deadline:
                return False
            if not is_told or signum == signal.SIGKILL:
                is_kill = signum == signal.SIGKILL
                await _tree_threads.run(self.tree.kill if is_kill else partial(self.tree.signal, signum))
                is_told = True
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_LOOK_S)
        return limit_ms > 0

    async def _is_any_left(self) -> bool:
        return await _tree_threads.run(self.tree.is_any_left) or self.poll() is None

    def _reap(self) -> None:
        self._is_reaped = True
        self._popen.poll()
        self.tree.forget()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _block_until_exit(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()


class _Pipes:
    """The daemon's ends of a child's pipes, and the child's ends until it has them."""

    def __init__(self, *, stdin: bool, stderr: bool) -> None:
        self._child_ends: list[int] = []
        self.stdin = None
        self.child_stdin = self.child_stderr = subprocess.DEVNULL
        self.child_stdout, stdout = self._open(writes=True)
        self.stdout = ReadPipe(stdout)
        self.stderr = None
        if stdin:
            self.child_stdin, ours = self._open(writes=False)
            self.stdin = WritePipe(ours)
        if stderr:
            self.child_stderr, ours = self._open(writes=True)
            self.stderr = ReadPipe(ours)

    def _open(self, *, writes: bool) -> tuple[int, int]:
        read_end, write_end = open_output_pipe() if writes else os.pipe()
        theirs, ours = (write_end, read_end) if writes else (read_end, write_end)
        self._child_ends.append(theirs)
        return theirs, ours

    def close_child_ends(self) -> None:
        for fd in self._child_ends:
            os.close(fd)

    def close_own_ends(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: Literal["null", "pipe"] = "null",
    stderr: Literal["stdout", "pipe", "null"] = "stdout",
    pass_fds: Collection[int] = (),
) -> Child:
    """Start ``argv`` with exactly the environment ``env`` (and a mark of nous's own).

    The child inherits the descriptors ``pass_fds`` under the same numbers, besides its standard streams.

    Call it in the event loop's thread: on Linux the child is killed when the *thread* that started it ends (from the
    moment it runs ``argv``, about a millisecond after this returns).
    stderr joins stdout in one pipe, in the order of writing, unless told otherwise.

    Raises:
        OSError: there is no such program or directory, or the system refused; nothing was started.
    """
    program = find_program(argv[0], env)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "no such program", argv[0])
    harden()
    mark = FAMILY.new_mark()
    pipes = _Pipes(stdin=stdin == "pipe", stderr=stderr == "pipe")
    wrapper = _death_wrapper()
    try:
        with FAMILY.lock:
            popen = subprocess.Popen(
                [*wrapper, program, *argv[1:]],
                cwd=cwd,
                env={**env, MARK_VARIABLE: f"{env.get(MARK_VARIABLE, '')}:{mark}"},
                stdin=pipes.child_stdin,
                stdout=pipes.child_stdout,
                stderr=subprocess.STDOUT if stderr == "stdout" else pipes.child_stderr,
                close_fds=True,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                preexec_fn=None if wrapper else death_hook(),  # noqa: PLW1509  it only calls prctl, loaded before
            )
            return Child(popen, mark, pipes)
    except BaseException:
        pipes.close_own_ends()
        raise
    finally:
        pipes.close_child_ends()


def find_program(name: str, env: Mapping[str, str]) -> str | None:
    """Return the path of an executable as a shell with the environment ``env`` would find it.

    Relative directories in PATH are left out, because what they mean depends on the working directory; so are those
    that cannot be entered.
    """
    if "/" in name:
        return name if _is_executable(name) else None
    directories = env.get("PATH", os.defpath).split(os.pathsep)
    candidates = (str(Path(directory) / name) for directory in directories if directory.startswith("/"))
    return next(filter(_is_executable, candidates), None)


def signal_name(number: int) -> str:
    """Return ``SIGSEGV`` for 11, ``signal 99`` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_executable(path: str) -> bool:
    # Path.is_file raises for a directory that cannot be entered or a name that is too long.
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113


def _open_pidfd(pid: int) -> int | None:
    """Return what tells of a child's exit without a thread; old kernels and some sandboxes do not have it."""
    fd = None
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
    return fd


def _peek_exit(popen: subprocess.Popen[bytes]) -> int | None:
    """Return how the child exited without reaping it, so that its pid and group cannot become another's."""
    if popen.returncode is not None or not hasattr(os, "waitid"):
        return popen.poll()
    info = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


@cache
def _death_wrapper() -> tuple[str, ...]:
    """Return the command that gives a child its parent-death signal without slowing the start by a real fork."""
    setpriv = find_program("setpriv", {}) if sys.platform == "linux" else None
    if setpriv is None:
        return ()
    wrapper = (setpriv, "--pdeathsig", "KILL", "--")
    probe = subprocess.run([*wrapper, setpriv, "--version"], capture_output=True, timeout=10, check=False)
    return wrapper if probe.returncode == 0 else ()
