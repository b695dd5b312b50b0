"""A dead daemon means waiting: the holder, its workers, and what killing each of them gives."""

from collections.abc import Callable

import pytest

from safehold.secure.fanotify.hold import Silence

Private = Callable[[str], list[str]]

_HELD = """
group = Group()
group.mark(SPACE.encode(), ALL, Scope.FILESYSTEM)
notes = os.open("/mnt/notes", os.O_CREAT | os.O_RDWR | os.O_APPEND)
def work(group, beat):
    os.write(notes, b"worker %d holder %d\\n" % (os.getpid(), os.getppid()))
    def until():
        beat.now()
        return beat.orphaned()
    answer(group, JUDGE, until)
holder = os.fork()
if holder == 0:
    Holder(group, work, stuck_s=1.0, note=lambda t: os.write(notes, t.encode() + b"\\n")).run()
    os._exit(0)
group.close()
def pids():
    for _ in range(6000):
        rows = [row.split() for row in open("/mnt/notes") if row.startswith("worker ")]
        rows = [row for row in rows if len(row) == 4 and row[2] == "holder"]
        if rows and os.path.exists("/proc/" + rows[-1][1]):
            return int(rows[-1][1]), int(rows[-1][3])
        time.sleep(0.01)
"""


def test_a_signal_before_the_holder_holds_is_heard(in_private: Private) -> None:
    """Between ready and holding, SIGHUP is kept for later and SIGTERM ends it in order."""
    lines = in_private(
        """
        group, asked = Group(), []
        holder = Holder(group, lambda group, beat: None, renew=lambda: asked.append(1))
        holder.take_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        print("lives")
        os.kill(os.getpid(), signal.SIGTERM)
        holder.run()
        print("ended")
        """
    )
    assert lines == ["lives", "ended"]


def test_killed_worker_means_waiting_and_the_next_one_answers(in_private: Private) -> None:
    """Twenty times the worker is killed: no program ever runs that the rule refuses."""
    lines = in_private(
        "JUDGE = no_exec"
        + _HELD
        + """
results = set()
for _ in range(20):
    worker, _ = pids()
    os.kill(worker, signal.SIGKILL)
    results.add(ended(spawn(SPACE + "/prog"), 60.0))
print(results)
os.kill(holder, signal.SIGTERM)
"""
    )
    assert lines == ["{17}"]


def test_question_that_a_dead_worker_had_read_ends_in_a_refusal(in_private: Private) -> None:
    """What was taken and never answered is refused by the next worker, and doesn't hang."""
    lines = in_private(
        """
def sleepy(event):
    os.write(notes, b"asked\\n")
    time.sleep(0 if os.path.exists("/mnt/awake") else 60)
    return True
JUDGE = sleepy
"""
        + _HELD
        + """
worker, _ = pids()
asker = spawn(SPACE + "/prog")
print(ended(asker, 0.3))
while "asked" not in open("/mnt/notes").read():
    time.sleep(0.01)
open("/mnt/awake", "w").close()
os.kill(worker, signal.SIGKILL)
print(ended(asker, 60.0))
print(ended(spawn(SPACE + "/prog"), 60.0))
os.kill(holder, signal.SIGTERM)
"""
    )
    assert lines == ["waits", "17", "0"]


def test_stuck_worker_is_replaced(in_private: Private) -> None:
    """A worker that goes round no more is killed by the holder; the asker gets a refusal."""
    lines = in_private(
        """
def stuck(event):
    time.sleep(60)
JUDGE = stuck
"""
        + _HELD
        + """
pids()
print(ended(spawn(SPACE + "/prog"), 60.0))
os.kill(holder, signal.SIGTERM)
"""
    )
    assert lines == ["17"]


def test_machine_that_stood_still_has_no_silent_worker() -> None:
    """A suspended machine: one round took an hour. It counts for half a second, no more."""
    silence = Silence(100.0, 100.0)
    assert silence.told(100.0, 100.1) == pytest.approx(0.1)
    assert silence.told(100.0, 3700.1) == pytest.approx(0.6)
    assert silence.told(3700.15, 3700.2) == 0.0


def test_silence_is_counted_by_the_rounds_of_who_was_awake() -> None:
    """The twin: ten seconds of rounds without a beat are ten seconds, and a beat ends them."""
    silence, now = Silence(5.0, 5.0), 5.0
    for number in range(1, 101):
        now += 0.1
        assert silence.told(5.0, now) == pytest.approx(number * 0.1)
    assert silence.told(now, now) == 0.0
    assert silence.told(now, now + 0.1) == pytest.approx(0.1)


def test_killed_holder_is_replaced_by_its_worker(in_private: Private) -> None:
    """After SIGKILL of the holder the worker holds, and survives its own worker's death."""
    lines = in_private(
        "JUDGE = no_exec"
        + _HELD
        + """
first, _ = pids()
os.kill(holder, signal.SIGKILL)
os.waitpid(holder, 0)
print(ended(spawn(SPACE + "/prog"), 60.0))
for _ in range(300):
    worker, parent = pids()
    if parent == first:
        break
    time.sleep(0.01)
os.kill(worker, signal.SIGKILL)
print(ended(spawn(SPACE + "/prog"), 60.0))
os.kill(first, signal.SIGTERM)
for _ in range(300):
    if run(SPACE + "/prog") == 0:
        break
    time.sleep(0.01)
print("stopped on purpose:", run(SPACE + "/prog"))
"""
    )
    assert lines == ["17", "17", "stopped on purpose: 0"]


def test_worker_opens_nothing_of_its_own_on_a_marked_mount(in_private: Private) -> None:
    """Among all questions of a busy minute none is the worker's or the holder's own."""
    lines = in_private(
        """
own = []
def judge(event):
    if event.pid in (os.getpid(), os.getppid()):
        os.write(notes, b"own question\\n")
    return no_exec(event)
JUDGE = judge
"""
        + _HELD
        + """
pids()
for _ in range(50):
    open(SPACE + "/prog").close()
    run(SPACE + "/prog")
os.kill(holder, signal.SIGTERM)
print(open("/mnt/notes").read().count("own question"))
"""
    )
    assert lines == ["0"]


def test_other_work_is_taken_without_a_gap_and_nothing_is_refused(in_private: Private) -> None:
    """At SIGHUP the next worker answers by the other rule; what was asked meanwhile runs or waits.

    Work that is not to be had leaves the worker that is.
    """
    lines = in_private(
        """
JUDGE = lambda event: True
"""
        + _HELD.replace(
            "note=lambda t:",
            "renew=lambda: other if os.path.exists('/mnt/other') else None, note=lambda t:",
        ).replace(
            "holder = os.fork()",
            """def other(group, beat):
    global JUDGE
    JUDGE = no_exec
    work(group, beat)
holder = os.fork()""",
        )
        + """
first, _ = pids()
os.kill(holder, signal.SIGHUP)
time.sleep(0.5)
print(pids()[0] == first, ended(spawn(SPACE + "/prog"), 60.0))
open("/mnt/other", "w").close()
os.kill(holder, signal.SIGHUP)
seen = []
for _ in range(400):
    seen.append(ended(spawn(SPACE + "/prog"), 60.0))
    if seen[-1] == 17:
        break
print(set(seen) == {0, 17} or seen == [17], seen[-1], pids()[0] != first)
os.kill(holder, signal.SIGTERM)
"""
    )
    assert lines == ["True 0", "True 17 True"]
