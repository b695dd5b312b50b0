"""The guard: answers the kernel's questions by the policy, in a worker that a holder keeps.

It opens nothing on a marked mount. What it must know of a file it reads from the question's own
descriptor; what it must know of who asks, from `/proc`.
"""

import datetime as dt
import gc
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec

from safehold.secure.endpoint.asker import Opening, opening
from safehold.secure.endpoint.facts import (
    Key,
    content_kind,
    digest,
    is_owned,
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
    Target,
    Verdict,
)
from safehold.secure.endpoint.inventory.book import InventoryBook
from safehold.secure.endpoint.invocation import (
    LANGUAGES,
    CodeSource,
    Invocation,
    Language,
    carries_code,
    invocation,
    language_of,
)
from safehold.secure.endpoint.muting import MutedFile, Mutes
from safehold.secure.endpoint.policy import EndpointPolicy, Mode, PolicyRow, decide, matches
from safehold.secure.endpoint.processes import readlink, there, unit_of, words
from safehold.secure.endpoint.records import Records
from safehold.secure.endpoint.starting import StartingSlots
from safehold.secure.fanotify.group import Group, Question
from safehold.secure.fanotify.hold import Beat
from safehold.secure.fanotify.interface import Asked, FanotifyError, Scope
from safehold.secure.fanotify.layers import layers_are_asked
from safehold.secure.fanotify.mounts import UNDATED, MountWatch, hidden_overlays
from safehold.secure.fanotify.patience import Patience
from safehold.secure.fanotify.wire import Event

_LOADER = re.compile(r"/ld[-.][^/]*\Z")
ASKED = Asked.OPEN | Asked.EXEC
_EXEC = int(Asked.EXEC)
"""As a number: to look into an enumeration takes longer than the rest of the question."""
_SUFFIXES = tuple(suffix for language in LANGUAGES for suffix in language.suffixes)
_WAIT_S = 0.2
_ROUND_S = 1.0
_KEPT = 100_000
_OWNED_S = 2.0
_FRESH_NS = 100_000_000
"""A change within the clock's grain of the last one may leave the change time as it was."""
_LOOKS = 40
"""Looks for the next question before sleeping: together well below a tenth of a millisecond."""
_WORKERS = 4
_NOBODY = ExecSubject(2**32 - 1, "")
_MOST_LINKS = 40
_WAITING = 512


class GuardState(msgspec.Struct):
    """What a worker counts since it started."""

    asked: int = 0
    refused: int = 0
    hashed: int = 0
    round: float = 0.0
    marks: int = 0
    unmarked: tuple[str, ...] = ()
    lost: int = 0


class ExecGuard:
    """One policy at work.

    Args:
        policy: Checked, with its essentials.
        catalogue: What the policy's inventories say of digests.
        interpreters: Digests of known interpreters: under another name they are still ones.
        records: Where refusals go.
        leave: Devices (`major:minor`) that are never marked.
        asked: What to be asked about; less than the default is for measuring.
        scope: What a mark covers; less than the default is for measuring.
        beside: Started in the worker beside the answering, with the state to report.
        left: What a guard of an older policy knows of programs that just start; it is told on.
    """

    def __init__(
        self,
        policy: EndpointPolicy,
        catalogue: InventoryBook,
        *,
        interpreters: dict[str, Language],
        records: Records,
        leave: frozenset[str] = frozenset(),
        asked: Asked = ASKED,
        scope: Scope = Scope.FILESYSTEM,
        beside: Callable[[GuardState, threading.Event], None] | None = None,
        left: StartingSlots | None = None,
    ) -> None:
        self._policy = policy
        self._catalogue = catalogue
        self._interpreters = interpreters
        self._records = records
        self._leave = leave
        self._beside = beside
        self._asked = asked
        self._scope = scope
        rows: tuple[PolicyRow, ...] = (*policy.allow, *policy.deny)
        self._units = any(row.units for row in rows)
        # Forms in which it matters who asks; for the others it is looked up for a refusal only.
        self._personal = frozenset(
            kind for row in rows if row.uids or row.exes or row.units for kind in row.kinds
        )
        self._allowed: dict[tuple[Key, CodeKind], float] = {}
        self.state = GuardState()
        self._digests: dict[Key, str] = {}
        self._programs: dict[Key, Language | None] = {}
        self._executed: dict[int, tuple[int, int]] = {}
        self._starting: dict[int, tuple[Key | None, Language | None, ExecSubject]] = {}
        self.left = left or StartingSlots()
        self._owned: dict[str, tuple[float, bool]] = {}
        self._today = dt.datetime.now(dt.UTC).date()
        self._overlays = hidden_overlays(os.getpid())
        self._layers = layers_are_asked()
        self._root = os.stat("/").st_dev
        self._changes = 0
        self._followed = False
        """Whether the last question was a program's: its loader comes next."""

    def work(self, group: Group, beat: Beat) -> None:
        """Answer until the holder is gone; a `Work` of `safehold.secure.fanotify.hold`."""
        self._me = os.getpid()
        # Alone on one processor, who looks on keeps those from running who would ask.
        self._looks = _LOOKS if len(os.sched_getaffinity(0)) > 1 else 0
        self._watch = MountWatch(
            group,
            self._asked,
            scope=self._scope,
            leave=self._leave,
            overlays=self._overlays,
            layers=self._layers,
        )
        self._slots = threading.BoundedSemaphore(_WAITING)
        self._mutes = Mutes(group, on=bool(self._asked & Asked.OPEN))
        self._mutes.begin()
        for pid in self.left.adopt():
            self._mutes.loading[pid] = False
            # Who executed it died with the last worker's memory: only rows for everybody allow it.
            self._starting[pid] = (None, None, _NOBODY)
        ended = threading.Event()
        helpers = []
        if self._beside is not None:
            helper = threading.Thread(target=self._beside, args=(self.state, ended), daemon=True)
            helper.start()
            helpers.append(helper)
        with ThreadPoolExecutor(_WORKERS) as pool:
            self._pool = pool
            # The threads are made now: a first question must not wait for them.
            list(pool.map(time.sleep, [0.001] * _WORKERS))
            self._watch.meet(self._me)
            last = 0.0
            # Apart: a program's opening is followed by its loader's at once, others by nothing.
            patiences = (Patience(self._looks), Patience(self._looks))
            answered = False
            # What is there now stays: the collector need not go through it again.
            gc.freeze()
            while not beat.orphaned():
                beat.now()
                patience = patiences[self._followed]
                looks = patience.looks() if answered else 0
                caught = self._watch.wait(_WAIT_S, looks)
                if looks:
                    patience.told(caught=caught)
                first = True
                for question in group.questions(0.0):
                    if first:
                        # What was mounted before these questions is marked before an answer.
                        self._watch.changed()
                        self._forget_mounted()
                        first = False
                    self._take(question)
                answered = not first
                now = time.monotonic()
                self.state.round = now
                if now - last > _ROUND_S:
                    last = now
                    self._go_round(group)
            ended.set()
        self._watch.close()
        for helper in helpers:
            helper.join(2.0)

    def _forget_mounted(self) -> None:
        """After a change of mounts, know only files of our own root's device.

        Another file system may have got a device's number, with the same inodes and times in it.
        Our own root stays mounted as long as we are.
        """
        if self._watch.changes == self._changes:
            return
        self._changes = self._watch.changes
        for key in [key for key in list(self._digests) if key[0] != self._root]:
            self._digests.pop(key, None)
        for row in [row for row in list(self._allowed) if row[0][0] != self._root]:
            self._allowed.pop(row, None)

    def _go_round(self, group: Group) -> None:
        self._today = dt.datetime.now(dt.UTC).date()
        self._watch.changed()
        self._watch.forget_ended()
        self._records.flush()
        self.state.lost = group.overflows + self._records.dropped
        self.state.marks = group.marks()
        self.state.unmarked = tuple(sorted(self._watch.unmarked))
        tables: tuple[dict[int, Any], ...] = (self._executed, self._starting, self._mutes.loading)
        for table in tables:
            if len(table) > _WAITING:
                for pid in [pid for pid in table if not os.path.exists(f"/proc/{pid}")]:
                    table.pop(pid, None)
                    self.left.remove(pid)

    # ---- one question ---------------------------------------------------------------------

    def _take(self, question: Question) -> None:
        """Answer at once, or give it to a thread that hashes; whatever breaks is a refusal."""
        self.state.asked += 1
        later = False
        allow = False
        try:
            ready = self._quick(question)
            if isinstance(ready, bool):
                allow = ready
            else:
                known = ready.key in self._digests
                later = not known and self._slots.acquire(blocking=False)
                if later:
                    self._pool.submit(self._later, question, ready)
                else:
                    allow = self._slow(question, ready)
        except (OSError, FanotifyError):
            allow = False
        finally:
            if not later:
                question.answer(allow=allow)

    def _later(self, question: Question, case: "_Case") -> None:
        allow = False
        try:
            allow = self._slow(question, case)
        except (OSError, FanotifyError):
            allow = False
        finally:
            question.answer(allow=allow)
            self._slots.release()

    def _quick(self, question: Question) -> "bool | _Case":
        """Answer what needs no digest; else say what the case is."""
        event = question.event
        if event.pid == self._me:
            return True
        found = os.fstat(event.handle)
        if not stat.S_ISREG(found.st_mode):
            return True
        self._followed = bool(event.mask & _EXEC)
        if self._followed:
            return self._execution(event, found)
        return self._opening(event, found)

    def _execution(self, event: Event, found: os.stat_result) -> "bool | _Case":
        # A namespace becomes known with its first program; its mounts are marked now.
        self._watch.meet(event.pid)
        self._forget_mounted()
        self._mutes.loading.pop(event.pid, None)
        key = key_of(found)
        if self._lately(key, CodeKind.ELF):
            self._note_execution(event.pid, key, self._programs.get(key), event.handle)
            return True
        return _Case(found, key, content_kind(event.handle, executed=True))

    def _opening(self, event: Event, found: os.stat_result) -> "bool | _Case":
        place = (found.st_dev, found.st_ino)
        if self._executed.get(event.pid) == place:
            # The same execve opens the program that was just allowed.
            del self._executed[event.pid]
            self._followed = True
            return True
        key = key_of(found)
        known = self._mutes.get(place)
        muted = known is not None and self._may_run_unasked(event, key, known)
        self._followed = muted and known is not None and known.dynamic
        loads = self._loads(event.pid, event.handle, muted=muted)
        judged = loads or event.pid not in self._starting
        lately = self._lately(key, CodeKind.LIBRARY)
        if judged and lately and (not muted or self._lately(key, CodeKind.ELF)):
            return True
        exe = self._exe(event.pid)
        language = self._programs.get(exe) if exe is not None else None
        if exe is not None and exe not in self._programs:
            language = language_of(readlink(f"/proc/{event.pid}/exe"))
        if language is not None and not loads:
            started = self._started(event.pid, exe, language)
            if started is False:
                return False
        kind = content_kind(event.handle, executed=False)
        if (
            kind is None
            and not muted
            and (language is None or not self._is_code(event.pid, language, event.handle, found))
        ):
            return True
        return _Case(found, key, kind, muted=muted)

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
        self._forget_mounted()
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

    def _is_code(self, pid: int, language: Language, handle: int, found: os.stat_result) -> bool:
        """Tell whether an interpreter opens this as code: by suffix, first line or argument."""
        if not found.st_size:
            return False
        name = os.readlink(f"/proc/self/fd/{handle}")
        if name.endswith(_SUFFIXES) or os.pread(handle, 2, 0) == b"#!":
            return True
        # Data files are arguments too; code is what the interpreter takes as such.
        how = invocation(language, words(pid, "cmdline"))
        for word in (how.path, *how.also):
            with suppress(OSError, ValueError):
                one = os.stat(there(pid, word))
                if word and (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
                    return True
        return False

    def _started(self, pid: int, exe: Key | None, known: Language) -> bool:
        """Judge how an interpreter was started, at its first open: its arguments are execve's."""
        starting = self._starting.get(pid)
        if starting is None or starting[0] not in (exe, None):
            return True
        key, language, subject = starting[0], starting[1] or known, starting[2]
        how = invocation(language, words(pid, "cmdline"))
        if how.source is CodeSource.FILE and how.path and not self._is_file(pid, how.path):
            how = Invocation(CodeSource.STDIN)
        if carries_code(language, words(pid, "environ")):
            how = Invocation(CodeSource.ARGUMENT)
        if how.source in {CodeSource.FILE, CodeSource.NOTHING}:
            self._judged(pid)
            return True
        path = readlink(f"/proc/{pid}/exe")
        sha256 = self._digests.get(key, "") if key is not None else ""
        target = self._target(CodeKind.INLINE, path, sha256)
        allow = self._say(Ask(subject, target))
        if allow:
            self._judged(pid)
        return allow

    def _judged(self, pid: int) -> None:
        self._starting.pop(pid, None)
        self.left.remove(pid)

    def _is_file(self, pid: int, path: str) -> bool:
        """Tell whether an interpreter's argument leads to a file, by the process's own links.

        A way through any `/proc` is none: `/dev/stdin` is a descriptor, and looked up by us it
        would be one of ours.
        """
        root = f"/proc/{pid}/root"
        if not path.startswith("/"):
            path = f"{readlink(f'/proc/{pid}/cwd')}/{path}"
        left = path.split("/")[::-1]
        here: list[str] = []
        links = 0
        while left:
            part = left.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                del here[-1:]
                continue
            place = f"{root}/{'/'.join([*here, part])}"
            try:
                found = os.lstat(place)
                if found.st_dev in self._watch.processes:
                    return False
                if not stat.S_ISLNK(found.st_mode):
                    here.append(part)
                    continue
                target = os.readlink(place)
            except (OSError, ValueError):
                return True  # the interpreter will not find it either
            links += 1
            if links > _MOST_LINKS:
                return False
            if target.startswith("/"):
                here = []
            left += target.split("/")[::-1]
        try:
            found = os.lstat(f"{root}/{'/'.join(here)}")
        except OSError:
            return True
        return stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)

    # ---- by digest --------------------------------------------------------------------------

    def _slow(self, question: Question, case: "_Case") -> bool:
        event = question.event
        executed = bool(event.mask & _EXEC)
        try:
            sha256 = self._digests.get(case.key) or self._hash(event.handle, case)
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
        target = self._target(case.kind, path, sha256)
        subject = self._subject(event.pid)
        if case.muted:
            # It may be an exec whose question was left out: that must be allowed as well.
            ask = Ask(subject, msgspec.structs.replace(target, kind=CodeKind.ELF))
            verdict = decide(self._policy, ask, self._today)
            if isinstance(verdict, Allowed):
                self._keep(case.key, CodeKind.ELF, sha256)
            elif self._mutes.drop(case.key[:2], event.handle):
                return self._act(ask, verdict)
        if case.kind in {CodeKind.LIBRARY, CodeKind.MODULE}:
            if self._reads(subject, event.pid):
                return True
            if sha256 in self._interpreters and _LOADER.search(subject.exe):
                # Its arguments would be the loader's, and nobody would judge them.
                refused = ExecRefused("", "an interpreter that is started through the loader")
                return self._act(Ask(subject, target), refused)
        allow = self._say(Ask(subject, target))
        plain = allow and self._keep(case.key, case.kind, sha256)
        if executed and allow:
            self._note_program(event, case, path, sha256)
            if plain and case.kind is CodeKind.ELF and self._programs[case.key] is None:
                self._mute(
                    event.handle, case, msgspec.structs.replace(target, kind=CodeKind.LIBRARY)
                )
        return allow

    def _mute(self, handle: int, case: "_Case", opened: Target) -> None:
        """Leave out the exec question of what everybody may execute and open as a library."""
        if (
            content_kind(handle, executed=False) is CodeKind.LIBRARY
            and isinstance(decide(self._policy, Ask(_NOBODY, opened), self._today), Allowed)
            and self._keep(case.key, CodeKind.LIBRARY, opened.sha256)
        ):
            loader = _LOADER.search(opened.path) is not None
            self._mutes.add(MutedFile(case.key, names_loader(handle), loader), handle)

    def _keep(self, key: Key, kind: CodeKind, sha256: str) -> bool:
        """Keep for a moment what was allowed to everybody; tell whether it was: not who asks."""
        plain = (
            kind in {CodeKind.ELF, CodeKind.LIBRARY}
            and kind not in self._personal
            and sha256 not in self._interpreters
            and self._policy.mode is Mode.ENFORCE
            and key in self._digests
        )
        if plain:
            if len(self._allowed) > _KEPT:
                self._allowed.clear()
            self._allowed[key, kind] = time.monotonic()
        return plain

    def _lately(self, key: Key, kind: CodeKind) -> bool:
        """Tell whether this very content was allowed to everybody a moment ago."""
        return time.monotonic() - self._allowed.get((key, kind), -_OWNED_S) < _OWNED_S

    def _note_program(self, event: Event, case: "_Case", path: str, sha256: str) -> None:
        if case.kind is CodeKind.SCRIPT:
            # The kernel will execute its interpreter next, in the same process.
            self._executed[event.pid] = (case.found.st_dev, case.found.st_ino)
            return
        if len(self._programs) > _KEPT:
            self._programs.clear()
        language = self._interpreters.get(sha256) or language_of(path)
        self._programs[case.key] = language
        if language is not None:
            self._digests.setdefault(case.key, sha256)
        self._note_execution(event.pid, case.key, language, event.handle)

    def _note_execution(self, pid: int, key: Key, language: Language | None, handle: int) -> None:
        if language is not None:
            if names_loader(handle):
                self._mutes.loading[pid] = True
            # Who executes it; a moment later this process is the interpreter itself.
            self._starting[pid] = (key, language, self._subject(pid))
            self.left.add(pid)
        self._executed[pid] = key[:2]

    def _hash(self, handle: int, case: "_Case") -> str:
        sha256 = digest(handle)
        after = os.fstat(handle)
        if key_of(after) != case.key:
            raise FanotifyError("expected a file that stays as it is, got one that changed")
        self.state.hashed += 1
        settled = time.time_ns() - after.st_ctime_ns > _FRESH_NS
        if settled and self._dated(handle):
            if len(self._digests) > _KEPT:
                self._digests.clear()
            self._digests[case.key] = sha256
        return sha256

    def _dated(self, handle: int) -> bool:
        """Tell whether every change of this file moves its change time."""
        kind = self._watch.kinds.get(_mount_number(handle), "")
        if kind == "overlay":
            return self._policy.dated_overlays
        return kind != "" and kind not in UNDATED

    def _target(self, kind: CodeKind, path: str, sha256: str) -> Target:
        return Target(
            kind,
            path,
            sha256,
            self._is_owned(path),
            self._catalogue.package(sha256),
            self._catalogue.vouching(sha256),
        )

    def _is_owned(self, path: str) -> bool:
        if not path:
            return False
        now = time.monotonic()
        known = self._owned.get(path)
        if known is None or now - known[0] > _OWNED_S:
            if len(self._owned) > _KEPT:
                self._owned.clear()
            known = (now, is_owned(path))
            self._owned[path] = known
        return known[1]

    def _subject(self, pid: int) -> ExecSubject:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            return _NOBODY
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
        return same and self._is_owned(subject.exe)

    def _say(self, ask: Ask) -> bool:
        return self._act(ask, decide(self._policy, ask, self._today))

    def _act(self, ask: Ask, verdict: Verdict) -> bool:
        if isinstance(verdict, Allowed):
            return True
        self.state.refused += 1
        self._records.add(ask, verdict)
        return self._policy.mode is not Mode.ENFORCE


class _Case:
    """One file to be judged by its digest; `muted`: it may be executed, and nobody was asked."""

    __slots__ = ("found", "key", "kind", "muted")

    def __init__(
        self, found: os.stat_result, key: Key, kind: CodeKind | None, *, muted: bool = False
    ) -> None:
        self.found = found
        self.key = key
        self.kind = kind or CodeKind.SCRIPT
        self.muted = muted


def _mount_number(handle: int) -> int:
    info = os.open(f"/proc/self/fdinfo/{handle}", os.O_RDONLY)
    try:
        text = os.read(info, 512)
    finally:
        os.close(info)
    for row in text.splitlines():
        if row.startswith(b"mnt_id:"):
            return int(row[7:])
    return -1
