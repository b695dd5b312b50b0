"""Judges one question of the kernel: at once where no digest is needed, else by the digest.

What it must know of a file it reads from the question's own descriptor; what it must know of who
asks, from `/proc`.
"""

import datetime as dt
import os
import re
import stat

import msgspec

from safehold.secure.endpoint.asker import Opening, opening
from safehold.secure.endpoint.facts import (
    Key,
    content_kind,
    key_of,
    names_loader,
    vouched_path,
)
from safehold.secure.endpoint.interface import (
    Allowed,
    Ask,
    CodeKind,
    ExecRefused,
    ExecSubject,
    GuardState,
    Target,
    Verdict,
)
from safehold.secure.endpoint.interpreter_starts import opens_as_code, started_with
from safehold.secure.endpoint.invocation import CodeSource, Language, language_of
from safehold.secure.endpoint.known_files import KnownFiles, is_dated
from safehold.secure.endpoint.muting import MutedFile, Mutes
from safehold.secure.endpoint.policy import EndpointPolicy, Mode, decide, matches
from safehold.secure.endpoint.processes import readlink, unit_of
from safehold.secure.endpoint.records import Records
from safehold.secure.endpoint.starting import StartingSlots
from safehold.secure.fanotify.group import Question
from safehold.secure.fanotify.interface import Asked, FanotifyError
from safehold.secure.fanotify.mounts import MountWatch
from safehold.secure.fanotify.wire import Event

_LOADER = re.compile(r"/ld[-.][^/]*\Z")
_EXEC = int(Asked.EXEC)
"""As a number: to look into an enumeration takes longer than the rest of the question."""
NOBODY = ExecSubject(2**32 - 1, "")


class FileJudge:
    """One policy at work in one worker.

    Args:
        policy: Checked, with its essentials.
        files: What is known of files.
        records: Where refusals go.
        left: What an earlier worker knew of programs that just start; it is told on.
        state: What is counted.
        watch: The mounts of every namespace that is known.
        mutes: The files whose exec question is left out.
        root: The device of our own root, which stays mounted as long as we are.
    """

    def __init__(
        self,
        policy: EndpointPolicy,
        files: KnownFiles,
        *,
        records: Records,
        left: StartingSlots,
        state: GuardState,
        watch: MountWatch,
        mutes: Mutes,
        root: int,
    ) -> None:
        self._policy = policy
        self.files = files
        self._records = records
        self._left = left
        self._state = state
        self._watch = watch
        self._mutes = mutes
        self._root = root
        self._me = os.getpid()
        self._units = any(row.units for row in (*policy.allow, *policy.deny))
        self.executed: dict[int, tuple[int, int]] = {}
        self.starting: dict[int, tuple[Key | None, Language | None, ExecSubject]] = {}
        self.today = dt.datetime.now(dt.UTC).date()
        self._changes = 0
        self.followed = False
        """Whether the last question was a program's: its loader comes next."""

    def forget_mounted(self) -> None:
        """After a change of mounts, know only files of our own root's device.

        Another file system may have got a device's number, with the same inodes and times in it.
        Our own root stays mounted as long as we are.
        """
        if self._watch.changes == self._changes:
            return
        self._changes = self._watch.changes
        self.files.forget_other_devices(self._root)

    def quick(self, question: Question) -> "bool | FileCase":
        """Answer what needs no digest; else say what the case is."""
        event = question.event
        if event.pid == self._me:
            return True
        found = os.fstat(event.handle)
        if not stat.S_ISREG(found.st_mode):
            return True
        self.followed = bool(event.mask & _EXEC)
        if self.followed:
            return self._execution(event, found)
        return self._opening(event, found)

    def _execution(self, event: Event, found: os.stat_result) -> "bool | FileCase":
        # A namespace becomes known with its first program; its mounts are marked now.
        self._watch.meet(event.pid)
        self.forget_mounted()
        self._mutes.loading.pop(event.pid, None)
        key = key_of(found)
        if self.files.lately(key, CodeKind.ELF):
            self._note_execution(event.pid, key, self.files.programs.get(key), event.handle)
            return True
        return FileCase(found, key, content_kind(event.handle, executed=True))

    def _opening(self, event: Event, found: os.stat_result) -> "bool | FileCase":
        place = (found.st_dev, found.st_ino)
        if self.executed.get(event.pid) == place:
            # The same execve opens the program that was just allowed.
            del self.executed[event.pid]
            self.followed = True
            return True
        key = key_of(found)
        known = self._mutes.get(place)
        muted = known is not None and self._may_run_unasked(event, key, known)
        self.followed = muted and known is not None and known.dynamic
        loads = self._loads(event.pid, event.handle, muted=muted)
        judged = loads or event.pid not in self.starting
        lately = self.files.lately(key, CodeKind.LIBRARY)
        if judged and lately and (not muted or self.files.lately(key, CodeKind.ELF)):
            return True
        exe = self._exe(event.pid)
        language = self.files.programs.get(exe) if exe is not None else None
        if exe is not None and exe not in self.files.programs:
            language = language_of(readlink(f"/proc/{event.pid}/exe"))
        if language is not None and not loads:
            started = self._started(event.pid, exe, language)
            if started is False:
                return False
        kind = content_kind(event.handle, executed=False)
        if (
            kind is None
            and not muted
            and (language is None or not opens_as_code(event.pid, language, event.handle, found))
        ):
            return True
        return FileCase(found, key, kind, muted=muted)

    def _may_run_unasked(self, event: Event, key: Key, known: MutedFile) -> bool:
        """Tell whether this opening may be an exec's, whose question was left out.

        Its namespace becomes known, too: by the mount on which the loader lies, if that is a known
        one. A program without a loader may come through an older namespace's descriptor.
        """
        if (
            known.key != key
            and content_kind(event.handle, executed=False) is not CodeKind.LIBRARY
            and not self._mutes.drop(key[:2], event.handle)
        ):
            return False  # another file, which has got the number
        seen = known.dynamic or (known.loader and self._watch.knows(event.handle))
        if known.key == key and seen:
            return True
        self._watch.meet(event.pid)
        self.forget_mounted()
        return True

    def _loads(self, pid: int, handle: int, *, muted: bool) -> bool:
        """Tell whether an exec opens its loader now: the new arguments are not there yet."""
        known = self._mutes.loading.pop(pid, None)
        if known is None:
            return False
        return (
            muted if known else _LOADER.search(os.readlink(f"/proc/self/fd/{handle}")) is not None
        )

    def _exe(self, pid: int) -> Key | None:
        try:
            return key_of(os.stat(f"/proc/{pid}/exe"))
        except OSError:
            return None

    def _started(self, pid: int, exe: Key | None, known: Language) -> bool:
        """Judge how an interpreter was started, at its first open: its arguments are execve's."""
        starting = self.starting.get(pid)
        if starting is None or starting[0] not in (exe, None):
            return True
        key, language, subject = starting[0], starting[1] or known, starting[2]
        how = started_with(pid, language, self._watch.processes)
        if how.source in {CodeSource.FILE, CodeSource.NOTHING}:
            self._judged(pid)
            return True
        path = readlink(f"/proc/{pid}/exe")
        sha256 = self.files.digests.get(key, "") if key is not None else ""
        target = self.files.target(CodeKind.INLINE, path, sha256)
        allow = self._say(Ask(subject, target))
        if allow:
            self._judged(pid)
        return allow

    def _judged(self, pid: int) -> None:
        self.starting.pop(pid, None)
        self._left.remove(pid)

    def slow(self, question: Question, case: "FileCase") -> bool:
        """Answer by the file's digest.

        Raises:
            OSError, FanotifyError: Something could not be looked at: refuse.
        """
        event = question.event
        executed = bool(event.mask & _EXEC)
        try:
            sha256 = self.files.digests.get(case.key) or self._hashed(event.handle, case)
        except FanotifyError as error:
            # Who opens for writing is a writer itself, and can neither read nor map it.
            reason = str(error)
            if not executed:
                how = opening(event.pid)
                if how is Opening.WRITES:
                    return True
                reason = f"{reason}; {how}"
            path = vouched_path(event.handle, case.found)
            ask = Ask(self._subject(event.pid), Target(case.kind, path))
            return self._act(ask, ExecRefused("", reason))
        path = vouched_path(event.handle, case.found)
        target = self.files.target(case.kind, path, sha256)
        subject = self._subject(event.pid)
        if case.muted:
            # It may be an exec whose question was left out: that must be allowed as well.
            ask = Ask(subject, msgspec.structs.replace(target, kind=CodeKind.ELF))
            verdict = decide(self._policy, ask, self.today)
            if isinstance(verdict, Allowed):
                self.files.keep(case.key, CodeKind.ELF, sha256)
            elif self._mutes.drop(case.key[:2], event.handle):
                return self._act(ask, verdict)
        if case.kind in {CodeKind.LIBRARY, CodeKind.MODULE}:
            if self._reads(subject, event.pid):
                return True
            if sha256 in self.files.interpreters and _LOADER.search(subject.exe):
                # Its arguments would be the loader's, and nobody would judge them.
                refused = ExecRefused("", "an interpreter that is started through the loader")
                return self._act(Ask(subject, target), refused)
        allow = self._say(Ask(subject, target))
        plain = allow and self.files.keep(case.key, case.kind, sha256)
        if executed and allow:
            self._note_program(event, case, path, sha256)
            if plain and case.kind is CodeKind.ELF and self.files.programs[case.key] is None:
                self._mute(
                    event.handle, case, msgspec.structs.replace(target, kind=CodeKind.LIBRARY)
                )
        return allow

    def _mute(self, handle: int, case: "FileCase", opened: Target) -> None:
        """Leave out the exec question of what everybody may execute and open as a library."""
        if (
            content_kind(handle, executed=False) is CodeKind.LIBRARY
            and isinstance(decide(self._policy, Ask(NOBODY, opened), self.today), Allowed)
            and self.files.keep(case.key, CodeKind.LIBRARY, opened.sha256)
        ):
            loader = _LOADER.search(opened.path) is not None
            self._mutes.add(MutedFile(case.key, names_loader(handle), loader), handle)

    def _note_program(self, event: Event, case: "FileCase", path: str, sha256: str) -> None:
        if case.kind is CodeKind.SCRIPT:
            # The kernel will execute its interpreter next, in the same process.
            self.executed[event.pid] = (case.found.st_dev, case.found.st_ino)
            return
        language = self.files.note_program(case.key, path, sha256)
        self._note_execution(event.pid, case.key, language, event.handle)

    def _note_execution(self, pid: int, key: Key, language: Language | None, handle: int) -> None:
        if language is not None:
            if names_loader(handle):
                self._mutes.loading[pid] = True
            # Who executes it; a moment later this process is the interpreter itself.
            self.starting[pid] = (key, language, self._subject(pid))
            self._left.add(pid)
        self.executed[pid] = key[:2]

    def _hashed(self, handle: int, case: "FileCase") -> str:
        def is_dated_here(handle: int) -> bool:
            return is_dated(handle, self._watch.kinds, overlays=self._policy.dated_overlays)

        sha256 = self.files.hashed(handle, case.key, is_dated_here)
        self._state.hashed += 1
        return sha256

    def _subject(self, pid: int) -> ExecSubject:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            return NOBODY
        unit = unit_of(pid) if self._units else ""
        return ExecSubject(uid, readlink(f"/proc/{pid}/exe"), unit)

    def _reads(self, subject: ExecSubject, pid: int) -> bool:
        """Tell whether a named reader reads it as data; it is the program of that path here."""
        if not any(matches(glob, subject.exe) for glob in self._policy.readers):
            return False
        try:
            here, there = os.stat(subject.exe), os.stat(f"/proc/{pid}/exe")
        except OSError:
            return False
        same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        return same and self.files.is_owned(subject.exe)

    def _say(self, ask: Ask) -> bool:
        return self._act(ask, decide(self._policy, ask, self.today))

    def _act(self, ask: Ask, verdict: Verdict) -> bool:
        if isinstance(verdict, Allowed):
            return True
        self._state.refused += 1
        self._records.add(ask, verdict)
        return self._policy.mode is not Mode.ENFORCE


class FileCase:
    """One file to be judged by its digest; `muted`: it may be executed, and nobody was asked."""

    __slots__ = ("found", "key", "kind", "muted")

    def __init__(
        self, found: os.stat_result, key: Key, kind: CodeKind | None, *, muted: bool = False
    ) -> None:
        self.found = found
        self.key = key
        self.kind = kind or CodeKind.SCRIPT
        self.muted = muted
