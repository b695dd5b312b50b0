"""Tiles and entry bundles: the static files of C2SP tlog-tiles, written and read."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from safehold.trust.log.interface import LogError, LogSource, LogTamperError
from safehold.trust.log.merkle import EMPTY_ROOT, HASH_BYTES, fold, hash_children

WIDTH = 256
HEIGHT = 8
MAX_ENTRY_BYTES = 2**16 - 1
_CACHED_TILES = 512


def index_path(index: int) -> str:
    """Return the index in zero-padded groups of three: 1234067 is `x001/x234/067`."""
    parts = [f"{index % 1000:03d}"]
    index //= 1000
    while index:
        parts.append(f"x{index % 1000:03d}")
        index //= 1000
    return "/".join(reversed(parts))


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return the path of a hash tile; a width below 256 names a partial tile."""
    return f"tile/{level}/{index_path(index)}{_suffix(width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Return the path of an entry bundle."""
    return f"tile/entries/{index_path(index)}{_suffix(width)}"


def _suffix(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"


def width_of(level: int, index: int, size: int) -> int:
    """Return how many hashes the tile has in a tree of `size` leaves (0: there is no tile)."""
    return max(0, min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return entries with their big-endian uint16 lengths."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        LogTamperError: a length points beyond the end.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + length]
        if at + 2 > len(data) or len(entry) < length:
            raise LogTamperError("expected a whole entry bundle, got a truncated one")
        entries.append(entry)
        at += 2 + length
    return entries


def check_entry(entry: bytes) -> None:
    """Refuse an entry that no bundle can hold.

    Raises:
        LogError: it is empty or longer than 65,535 bytes.
    """
    if not 0 < len(entry) <= MAX_ENTRY_BYTES:
        raise LogError(f"expected an entry of 1 to {MAX_ENTRY_BYTES} bytes, got {len(entry)}")


class TileReader:
    """Reads subtree hashes and entries of one tree size from static files, with a small cache."""

    def __init__(self, source: LogSource, size: int) -> None:
        self.size = size
        self._source = source
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree (a `NodeReader`)."""
        tile_level, inner = divmod(level, HEIGHT)
        first = index << inner
        tile = self._tile(tile_level, first // WIDTH)
        at = (first % WIDTH) * HASH_BYTES
        count = 1 << inner
        piece = tile[at : at + count * HASH_BYTES]
        if len(piece) != count * HASH_BYTES:
            raise LogTamperError(f"tile {tile_level}/{first // WIDTH} is too short for the tree")
        return fold([piece[i : i + HASH_BYTES] for i in range(0, len(piece), HASH_BYTES)])

    def _tile(self, level: int, index: int) -> bytes:
        key = (level, index)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        width = width_of(level, index, self.size)
        data = self._read(tile_path(level, index, width), tile_path(level, index))
        if len(data) < width * HASH_BYTES:
            raise LogTamperError(f"tile {level}/{index} has the wrong size")
        self._tiles[key] = data[: width * HASH_BYTES]
        if len(self._tiles) > _CACHED_TILES:
            self._tiles.popitem(last=False)
        return self._tiles[key]

    def _read(self, path: str, fallback: str) -> bytes:
        data = self._source.read(path)
        if data is None:
            data = self._source.read(fallback)
        if data is None:
            raise LogTamperError(f"the log lacks {path}")
        return data

    def leaf_hashes(self, tile: int) -> list[bytes]:
        """Return the leaf hashes of one level-0 tile."""
        data = self._tile(0, tile)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def bundle(self, index: int) -> list[bytes]:
        """Return the entries of one bundle, as many as the tree has.

        Raises:
            LogTamperError: the file is missing, damaged or short.
        """
        width = width_of(0, index, self.size)
        data = self._read(bundle_path(index, width), bundle_path(index))
        entries = decode_bundle(data)
        if len(entries) < width:
            raise LogTamperError(f"entry bundle {index} is too short for the tree")
        return entries[:width]

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield index and bytes of every entry from `start` on."""
        for bundle in range(start // WIDTH, -(-self.size // WIDTH)):
            for offset, entry in enumerate(self.bundle(bundle)):
                index = bundle * WIDTH + offset
                if index >= start:
                    yield index, entry


class Frontier:
    """The right edge of a growing tree: what an append needs, and no more.

    Holds the hashes of each level's last, not yet full tile: at most 255 per level.
    """

    def __init__(self) -> None:
        self.size = 0
        self._rows: list[list[bytes]] = [[]]

    def add(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Append a leaf hash; return the tiles that became full as (level, index, bytes)."""
        full: list[tuple[int, int, bytes]] = []
        self.size += 1
        level, value = 0, leaf
        while True:
            if level == len(self._rows):
                self._rows.append([])
            row = self._rows[level]
            row.append(value)
            if len(row) < WIDTH:
                return full
            full.append((level, (self.size >> (HEIGHT * (level + 1))) - 1, b"".join(row)))
            value = fold(row)
            row.clear()
            level += 1

    def partials(self) -> list[tuple[int, int, int, bytes]]:
        """Return the partial tiles of this size as (level, index, width, bytes)."""
        return [
            (level, self.size >> (HEIGHT * (level + 1)), len(row), b"".join(row))
            for level, row in enumerate(self._rows)
            if row
        ]

    def root(self) -> bytes:
        """Return the root hash of this size."""
        root: bytes | None = None
        for row in self._rows:
            end, span = len(row), 1
            while end:
                if end & span:
                    part = fold(row[end - span : end])
                    root = part if root is None else hash_children(part, root)
                    end -= span
                span <<= 1
        return EMPTY_ROOT if root is None else root

    @classmethod
    def of(cls, reader: TileReader, size: int | None = None) -> "Frontier":
        """Return the frontier of a stored tree's first leaves (None: of all), from its tiles.

        Raises:
            LogTamperError: a tile is missing or short.
        """
        frontier = cls()
        frontier.size = size = reader.size if size is None else size
        frontier._rows = []
        level = 0
        while level == 0 or size >> (HEIGHT * level):
            index = size >> (HEIGHT * (level + 1))
            width = width_of(level, index, size)
            row = [reader.node(HEIGHT * level, index * WIDTH + at) for at in range(width)]
            frontier._rows.append(row)
            level += 1
        return frontier
