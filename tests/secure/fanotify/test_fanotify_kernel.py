"""Marks, mounts and leases on the real kernel, each in a mount namespace of its own."""

from collections.abc import Callable

Private = Callable[[str], list[str]]


def test_bind_mount_escapes_a_mount_mark_and_not_a_file_system_mark(in_private: Private) -> None:
    """The same program through a bind mount runs under the one mark and not under the other."""
    lines = in_private(
        """
        for scope in (Scope.MOUNT, Scope.FILESYSTEM):
            group = Group()
            answering(group, no_exec)
            group.mark(SPACE.encode(), ALL, scope)
            os.makedirs("/mnt/bind", exist_ok=True)
            subprocess.run(["mount", "--bind", SPACE, "/mnt/bind"], check=True)
            print(scope.name, run(SPACE + "/prog"), run("/mnt/bind/prog"))
            # Lazily: an answer wakes the asker before the answering thread closes the asked file.
            subprocess.run(["umount", "--lazy", "/mnt/bind"], check=True)
            group.unmark(SPACE.encode(), ALL, scope)
        """
    )
    assert lines == ["MOUNT refused 0", "FILESYSTEM refused refused"]


def test_what_is_mounted_later_is_marked_before_the_next_answer(in_private: Private) -> None:
    """A new tmpfs is marked at once, also one that a child's mount namespace mounted."""
    lines = in_private(
        """
        group = Group()
        # Only what is below our own tmpfs is marked here: the rest is the machine's.
        mounts = MountTable(os.getpid()).read()
        host = {one.device for one in mounts if not one.point.startswith("/mnt")}
        watch = MountWatch(group, ALL, leave=frozenset(host))
        def judge(event):
            watch.meet(event.pid); watch.changed()
            return no_exec(event)
        watch.meet(os.getpid())
        answering(group, judge)
        os.mkdir("/mnt/later")
        print(run(SPACE + "/prog"))
        subprocess.run(["mount", "-t", "tmpfs", "later", "/mnt/later"], check=True)
        watch.changed()
        shutil.copy("/bin/true", "/mnt/later/prog")
        print(run("/mnt/later/prog"))
        child = "cat /mnt/space/prog >/dev/null; mount -t tmpfs own /mnt/later; sleep 0.2; "
        # The namespace is met at its first question, its tmpfs at the next one.
        child += "cat /mnt/space/prog > /mnt/later/x; chmod +x /mnt/later/x; /mnt/later/x"
        print(run("unshare", "-m", "/bin/sh", "-c", child))
        print(group.overflows, [one for one in watch.unmarked if "later" in one])
        """
    )
    assert lines == ["refused", "refused", "126", "0 []"]


def test_lease_is_refused_while_a_writer_or_a_writable_mapping_is_open(in_private: Private) -> None:
    """What may still change while it is hashed gets no lease; afterwards it gets one."""
    lines = in_private(
        """
        def leased():
            handle = os.open(SPACE + "/prog", os.O_RDONLY)
            try:
                with read_lease(handle):
                    return "leased"
            except WriterError:
                return "writer"
            finally:
                os.close(handle)
        print(leased())
        with open(SPACE + "/prog", "r+b") as file:
            print(leased())
            mapping = mmap.mmap(file.fileno(), 0)
        print(leased())
        mapping.close()
        print(leased())
        """
    )
    assert lines == ["leased", "writer", "writer", "leased"]


def test_writer_that_breaks_the_lease_does_not_end_the_reader(in_private: Private) -> None:
    """SIGIO of a broken lease, which ends a process by default, is ignored; the writer waits."""
    lines = in_private(
        """
        prepare_reader()
        handle = os.open(SPACE + "/prog", os.O_RDONLY)
        with read_lease(handle):
            pid = os.fork()
            if pid == 0:
                os.close(os.open(SPACE + "/prog", os.O_WRONLY)); os._exit(0)
            print(ended(pid, 0.3))
        print(ended(pid, 5))
        """
    )
    assert lines == ["waits", "0"]


def test_marks_are_read_back_from_the_kernel(in_private: Private) -> None:
    """How many marks there are is the kernel's word, not our own count."""
    lines = in_private(
        """
        group = Group()
        print(group.marks())
        group.mark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        print(group.marks())
        group.unmark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        print(group.marks())
        """
    )
    assert lines == ["0", "1", "0"]


def test_overlay_is_marked_itself_where_its_layers_are_not_asked(in_private: Private) -> None:
    """An older kernel says nothing of the layers; what was tried decides, not a version."""
    lines = in_private(
        """
        for name in ("work", "over"):
            os.makedirs(f"/mnt/{name}", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "work", "/mnt/work"], check=True)
        for name in ("up", "wk"):
            os.mkdir(f"/mnt/work/{name}")
        options = f"lowerdir={SPACE},upperdir=/mnt/work/up,workdir=/mnt/work/wk"
        subprocess.run(["mount", "-t", "overlay", "over", "-o", options, "/mnt/over"], check=True)
        asked = layers_are_asked()
        group = Group()
        group.mark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        answering(group, no_exec)
        print(asked == (run("/mnt/over/prog") == "refused"))
        group.unmark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        mounts = MountTable(os.getpid()).read()
        # The layers are left out, as on a kernel that does not ask there.
        others = frozenset(one.device for one in mounts if one.point != "/mnt/over")
        for layers in (True, False):
            group = Group()
            watch = MountWatch(group, ALL, leave=others, layers=layers)
            watch.meet(os.getpid())
            answering(group, no_exec)
            print(run("/mnt/over/prog"))
        """
    )
    assert lines == ["True", "0", "refused"]


def test_who_opens_for_writing_only_is_known_while_it_is_asked(in_private: Private) -> None:
    """While the kernel asks, the arguments stand: of a writer, a reader, and one that is both."""
    lines = in_private(
        """
        from safehold.secure.endpoint.asker import only_writes
        group = Group()
        group.mark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        found = []
        def judge(event):
            found.append(only_writes(event.pid))
            return True
        answering(group, judge)
        for flags in (os.O_WRONLY, os.O_RDONLY, os.O_RDWR):
            pid = os.fork()
            if pid == 0:
                os.close(os.open(SPACE + "/prog", flags))
                os._exit(0)
            os.waitpid(pid, 0)
        print(found)
        """
    )
    assert lines == ["[True, False, False]"]


def test_file_system_that_gets_a_number_again_is_marked_again(in_private: Private) -> None:
    """Mounted, unmounted, mounted: the third has the first one's number, and is marked as well."""
    lines = in_private(
        """
        group = Group()
        mounts = MountTable(os.getpid()).read()
        host = {one.device for one in mounts if not one.point.startswith("/mnt")}
        watch = MountWatch(group, ALL, leave=frozenset(host))
        def judge(event):
            watch.changed()
            return no_exec(event)
        watch.meet(os.getpid())
        answering(group, judge)
        os.mkdir("/mnt/later")
        numbers, before = set(), watch.changes
        for _ in range(6):
            subprocess.run(["mount", "-t", "tmpfs", "later", "/mnt/later"], check=True)
            watch.changed()
            numbers.add(os.stat("/mnt/later").st_dev)
            shutil.copy("/bin/true", "/mnt/later/prog")
            print(run("/mnt/later/prog"))
            subprocess.run(["umount", "--lazy", "/mnt/later"], check=True)
            time.sleep(0.05)
        print(len(numbers) < 6, watch.changes > before)
        """
    )
    assert lines == ["refused"] * 6 + ["True True"]


def test_ignored_exec_is_asked_again_after_a_write(in_private: Private) -> None:
    """Left out, its opening is asked all the same; a write, `heed` and `flush_files` end it."""
    lines = in_private(
        """
        group = Group()
        group.mark(SPACE.encode(), ALL, Scope.FILESYSTEM)
        seen = []
        def judge(event):
            seen.append("exec" if event.mask & Asked.EXEC else "open")
            return True
        answering(group, judge)
        def asked():
            del seen[:]
            assert run(SPACE + "/prog") == 0
            print(*seen, group.marks())
        path = os.open(SPACE + "/prog", os.O_PATH)
        prog = os.open(f"/proc/self/fd/{path}", os.O_RDONLY)
        asked()
        group.ignore(prog, Asked.EXEC)
        asked()
        with open(SPACE + "/prog", "r+b") as file:
            file.write(b"\\x7f")
        asked()
        group.ignore(prog, Asked.EXEC)
        group.heed(prog, Asked.EXEC)
        asked()
        group.ignore(prog, Asked.EXEC)
        group.flush_files()
        asked()
        try:
            group.heed(prog, Asked.EXEC)
        except FanotifyError as error:
            print("not ignored" in str(error) or "was not" in str(error))
        """
    )
    assert lines == ["exec open 1", "open 1", *["exec open 1"] * 3, "True"]
