"""The guard: answers the kernel's questions by the policy, in a worker that a holder keeps.

Here is the worker: its loop, its threads and its rounds. What an answer is, `file_judge` says. It
opens nothing on a marked mount.
"""

import datetime as dt
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from safehold.secure.endpoint.file_judge import NOBODY, FileCase, FileJudge
from safehold.secure.endpoint.interface import GuardState
from safehold.secure.endpoint.inventory.book import InventoryBook
from safehold.secure.endpoint.invocation import Language
from safehold.secure.endpoint.known_files import KnownFiles
from safehold.secure.endpoint.muting import Mutes
from safehold.secure.endpoint.policy import EndpointPolicy
from safehold.secure.endpoint.records import Records
from safehold.secure.endpoint.starting import StartingSlots
from safehold.secure.fanotify.group import Group, Question
from safehold.secure.fanotify.hold import Beat
from safehold.secure.fanotify.interface import Asked, FanotifyError, Scope
from safehold.secure.fanotify.layers import layers_are_asked
from safehold.secure.fanotify.mounts import MountWatch, hidden_overlays
from safehold.secure.fanotify.patience import Patience

ASKED = Asked.OPEN | Asked.EXEC
_WAIT_S = 0.2
_ROUND_S = 1.0
_LOOKS = 40
"""Looks for the next question before sleeping: together well below a tenth of a millisecond."""
_WORKERS = 4
_WAITING = 512


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
        self.state = GuardState()
        self.left = left or StartingSlots()
        self._overlays = hidden_overlays(os.getpid())
        self._layers = layers_are_asked()
        self._root = os.stat("/").st_dev

    def work(self, group: Group, beat: Beat) -> None:
        """Answer until the holder is gone; a `Work` of `safehold.secure.fanotify.hold`."""
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
        self._judge = judge = FileJudge(
            self._policy,
            KnownFiles(self._policy, self._catalogue, self._interpreters),
            records=self._records,
            left=self.left,
            state=self.state,
            watch=self._watch,
            mutes=self._mutes,
            root=self._root,
        )
        for pid in self.left.adopt():
            self._mutes.loading[pid] = False
            # Who executed it died with the last worker's memory: only rows for everybody allow it.
            judge.starting[pid] = (None, None, NOBODY)
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
            self._watch.meet(os.getpid())
            last = 0.0
            # Apart: a program's opening is followed by its loader's at once, others by nothing.
            patiences = (Patience(self._looks), Patience(self._looks))
            answered = False
            # What is there now stays: the collector need not go through it again.
            gc.freeze()
            while not beat.orphaned():
                beat.now()
                patience = patiences[judge.followed]
                looks = patience.looks() if answered else 0
                caught = self._watch.wait(_WAIT_S, looks)
                if looks:
                    patience.told(caught=caught)
                first = True
                for question in group.questions(0.0):
                    if first:
                        # What was mounted before these questions is marked before an answer.
                        self._watch.changed()
                        judge.forget_mounted()
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

    def _go_round(self, group: Group) -> None:
        judge = self._judge
        judge.today = dt.datetime.now(dt.UTC).date()
        self._watch.changed()
        self._watch.forget_ended()
        self._records.flush()
        self.state.lost = group.overflows + self._records.dropped
        self.state.marks = group.marks()
        self.state.unmarked = tuple(sorted(self._watch.unmarked))
        tables: tuple[dict[int, Any], ...] = (judge.executed, judge.starting, self._mutes.loading)
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
            ready = self._judge.quick(question)
            if isinstance(ready, bool):
                allow = ready
            else:
                known = ready.key in self._judge.files.digests
                later = not known and self._slots.acquire(blocking=False)
                if later:
                    self._pool.submit(self._later, question, ready)
                else:
                    allow = self._judge.slow(question, ready)
        except (OSError, FanotifyError):
            allow = False
        finally:
            if not later:
                question.answer(allow=allow)

    def _later(self, question: Question, case: FileCase) -> None:
        allow = False
        try:
            allow = self._judge.slow(question, case)
        except (OSError, FanotifyError):
            allow = False
        finally:
            question.answer(allow=allow)
            self._slots.release()
