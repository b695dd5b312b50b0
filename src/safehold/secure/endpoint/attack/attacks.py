"""The attacks, as shell commands in a stage, and which declared engine stops which.

`{w}` is a disk file system, `{t}` a tmpfs, `{act}` runs an act of `act.py`, `{py}` is Python.
A command that prints RAN has run what nobody allowed.
"""

# ruff: noqa: E501 - one line for each attack

import msgspec


class Attack(msgspec.Struct, frozen=True):
    """One attack. `benign` ones must run under every engine; `extra` ones are not of the 35."""

    name: str
    command: str
    benign: bool = False
    extra: bool = False


def _of(name: str, command: str, *, benign: bool = False, extra: bool = False) -> Attack:
    return Attack(name, command, benign, extra)


ATTACKS: tuple[Attack, ...] = (
    _of("allowed program", "/bin/true && echo RAN", benign=True),
    _of("allowed content, other path", "{w}/okcopy && echo RAN", benign=True),
    _of("unknown ELF", "{w}/prog RAN"),
    _of("unknown static ELF", "{w}/progs"),
    _of("ELF on tmpfs", "{t}/prog RAN"),
    _of("ELF on /dev/shm", "/dev/shm/prog RAN"),
    _of("hard link", "{w}/hard RAN"),
    _of("symlink", "{w}/sym RAN"),
    _of("set-uid copy", "{w}/suid RAN"),
    _of("bind mount", "mount --bind {w}/d {t}/bind && {t}/bind/prog RAN; umount {t}/bind"),
    _of(
        "overlay",
        "mount -t overlay o -o lowerdir={w}/d,upperdir={t}/up,workdir={t}/wk {t}/ov"
        " && {t}/ov/prog RAN; umount {t}/ov",
    ),
    _of(
        "new tmpfs in new mount namespace",
        'unshare -m bash -c "mount -t tmpfs n {t}/img && base64 -d {w}/progs.b64 > {t}/img/prog'
        ' && chmod +x {t}/img/prog && {t}/img/prog"',
    ),
    _of(
        "new user and mount namespace",
        'setpriv --reuid 65534 --clear-groups unshare -Urm bash -c "mount -t tmpfs n /mnt/n'
        ' && base64 -d {w}/progs.b64 > /mnt/n/prog && chmod +x /mnt/n/prog && /mnt/n/prog"',
    ),
    _of("loop-mounted image", "mount -o loop,ro {w}/img.ext4 {t}/img && {t}/img/progs; umount {t}/img"),
    _of("chroot", "chroot {w} /progs"),
    _of("memfd and fexecve", "{act} memfd {w}/progs.b64"),
    _of("O_TMPFILE and fexecve", "{act} otmpfile {w} {w}/progs.b64"),
    _of("/proc/self/fd", "{act} procfd {w}/progs"),
    _of("O_PATH execveat", "{act} opath {w}/progs"),
    _of("deleted file", "base64 -d {w}/progs.b64 > {w}/del && chmod +x {w}/del && {act} deleted {w}/del"),
    _of("ld.so ./prog", "{loader} {w}/prog RAN"),
    _of("LD_PRELOAD", "LD_PRELOAD={w}/lib.so /bin/true"),
    _of("library opened by an interpreter", '{py} -c "import ctypes; ctypes.CDLL(\'{w}/lib.so\')"'),
    _of("./x.sh", "{w}/x.sh"),
    _of("sh x.sh", "/bin/sh {w}/x.sh"),
    _of("python x.py", "{py} {w}/x.py"),
    _of("shebang of an unknown ELF", "{w}/chain"),
    _of("script on stdin", "cat {w}/x.sh | /bin/sh"),
    _of(
        "script by FIFO",
        "rm -f {t}/ff; mkfifo {t}/ff; (timeout 3 dd if={w}/x.sh of={t}/ff status=none &) ; timeout 3 /bin/sh {t}/ff",
    ),
    _of("python -c", "{py} -c \"print('RAN')\""),
    _of("data mapped as code", "{act} mapped {w}/code.bin"),
    _of("data mapped, then made code", "{act} protected {w}/code.bin"),
    _of("writable and executable memory", "{act} anonymous {w}/code.bin"),
    _of("io_uring open, mapped as code", "{act} uring {w}/code.bin"),
    _of(
        "binfmt_misc in a user namespace",
        'unshare -Urm bash -c "mount -t binfmt_misc b /proc/sys/fs/binfmt_misc && '
        "echo :hdg:E::hdgx::/bin/sh: > /proc/sys/fs/binfmt_misc/register && "
        'cp {w}/x.txt {t}/y.hdgx && chmod +x {t}/y.hdgx && {t}/y.hdgx"',
    ),
    _of(
        "rewritten in place after it ran",
        "cp /bin/true {w}/toc && {w}/toc; base64 -d {w}/progs.b64 > {w}/toc && {w}/toc",
    ),
    _of(
        "rewritten, times put back",
        "cp /bin/true {w}/toc2 && {w}/toc2; touch -r {w}/toc2 {t}/ref;"
        " base64 -d {w}/progs.b64 > {w}/toc2; touch -r {t}/ref {w}/toc2; {w}/toc2",
    ),
    # Found since: more ways of the same kinds.
    _of("script without a suffix", "/bin/sh {w}/x.txt", extra=True),
    _of("script named as an option's file", "/bin/bash --rcfile {w}/x.txt -i", extra=True),
    _of("renamed interpreter", "cp /bin/sh {t}/harmless; {t}/harmless {w}/x.txt", extra=True),
    _of("loader starts an interpreter", "{loader} {python} -c \"print('RAN')\"", extra=True),
    _of("rewritten by a mapping on tmpfs", "cp /bin/true {t}/toc; {act} stored {t}/toc {w}/progs.b64", extra=True),
    _of("writer kept open", "cp {w}/ok.sh {t}/late.sh; {act} kept_open {t}/late.sh {w}/x.b64", extra=True),
    _of("nameless memory mapped twice", "{act} twice_mapped {w}/code.bin", extra=True),
    _of("script by /dev/stdin", "cat {w}/x.sh | /bin/sh /dev/stdin", extra=True),
    _of("script by a link to a descriptor", "ln -sf /proc/self/fd/0 {t}/l; cat {w}/x.sh | /bin/sh {t}/l", extra=True),
    _of("script by another descriptor", "/bin/sh /dev/fd/5 5< <(cat {w}/x.sh)", extra=True),
    _of("script by another /proc", "mkdir -p {t}/p; mount -t proc p {t}/p; cat {w}/x.sh | /bin/sh {t}/p/self/fd/0; umount {t}/p", extra=True),
    _of("script by BASH_ENV", "BASH_ENV={w}/x.txt /bin/bash /usr/bin/ldd --version", extra=True),
    _of("exported function", "env 'BASH_FUNC_echo%%=() { builtin echo RAN; }' /bin/bash /usr/bin/ldd --version", extra=True),
    _of("sh -c", "/bin/sh -c 'echo RAN'", extra=True),
)  # fmt: skip
COUNTED: tuple[Attack, ...] = tuple(one for one in ATTACKS if not (one.benign or one.extra))
